"""How pauses that people ask for change a state: a part of `fold`."""

from __future__ import annotations

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.forced import Forced
from pitstop_scheduler.model import State


def asked(state: State, change: c.PauseAsked) -> None:
    job = state.edit_job(change.job)
    job.forced = (job.forced or Forced()).asked(change.by, on=change.on, revision=change.revision)


def heard(state: State, change: c.PauseHeard) -> None:
    job = state.edit_job(change.job)
    before = job.forced or Forced()
    after = before.asked(change.by, on=True, revision=before.revision)
    job.forced = msgspec.structs.replace(after, step=change.step)
    job.serial = max(job.serial, change.serial)


def taken(state: State, change: c.PauseTaken) -> None:
    job = state.edit_job(change.job)
    job.forced = msgspec.structs.replace(job.forced or Forced(), armed=False, by="", step=0, open=True)
