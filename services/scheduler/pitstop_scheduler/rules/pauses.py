"""Rules for pauses that somebody asks for while a job runs. Pure."""

from __future__ import annotations

from typing import Final

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.forced import Forced
from pitstop_scheduler.model import Job
from pitstop_scheduler.tick import Stored, Tick, of_claimant

PAUSABLE: Final = frozenset({"starting", "running"})


def asked(tick: Tick, fact: m.RunPause, _: Stored) -> None:
    """A wish that was made of an earlier state of things, or is said again, means nothing. One for a job that has come
    to a pause meanwhile lets its person in."""
    run, job = tick.draft.run(fact.run), tick.draft.job(fact.job)
    if run is None or job is None or job.run != run.id or run.org != fact.org or job.attempt != fact.attempt:
        return
    if job.status not in PAUSABLE and job.status != "paused":
        return
    now = job.forced or Forced()
    wanted = now.asked(fact.by, on=not fact.off, revision=now.revision)
    if fact.revision == now.revision and (wanted.armed, wanted.users) != (now.armed, now.users):
        tick.emit(c.PauseAsked(job.id, now.revision + 1, fact.by, not fact.off, fact.id))


def heard(tick: Tick, fact: m.JobPausing, _: Stored) -> None:
    """From the host: because of a wish that it was told of, or of one that somebody inside had."""
    job = of_claimant(tick, fact)
    if job is not None and job.status in PAUSABLE and fact.revision >= (job.forced or Forced()).revision:
        tick.emit(c.PauseHeard(job.id, fact.step, fact.by, fact.serial))


def paused(tick: Tick, job: Job, fact: m.JobPaused) -> None:
    """The job waits. A wish that its host has heard of is fulfilled by any pause; one that it has not stays."""
    forced = job.forced
    if forced is None:
        return
    fulfilled = forced.armed and fact.revision >= forced.revision
    if fulfilled or (fact.reason == "forced" and not forced.open):
        tick.emit(c.PauseTaken(job.id))
