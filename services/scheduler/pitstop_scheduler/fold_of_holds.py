"""How holds change a state: a part of `fold`. The holds of an org are replaced, never changed in place."""

from __future__ import annotations

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.hold import Hold, OnJob
from pitstop_scheduler.model import Org, State


def hold_set(state: State, change: c.HoldSet) -> None:
    hold = Hold(change.hold, change.project, change.key, change.branch, change.user, change.by, change.count,
                change.until)  # fmt: skip
    org = state.edit_org(change.org)
    org.holds = org.holds | {hold.id: hold}


def hold_removed(state: State, change: c.HoldRemoved) -> None:
    org = state.edit_org(change.org)
    if change.forget:
        org.holds = {id: hold for id, hold in org.holds.items() if id != change.hold}
    else:
        _leave(org, org.holds[change.hold], 0)


def hold_used(state: State, change: c.HoldUsed) -> None:
    org = state.edit_org(change.org)
    hold = org.holds[change.hold]
    _leave(org, hold, hold.left - 1)
    job = state.edit_job(change.job)
    job.hold = OnJob(hold.id, hold.user, used=True)


def _leave(org: Org, hold: Hold, left: int) -> None:
    org.holds = org.holds | {hold.id: msgspec.structs.replace(hold, left=left)}


def granted_with(state: State, change: c.Granted, org: str) -> None:
    """The hold that a job starts with."""
    hold = state.org(org).holds[change.hold]
    state.edit_job(change.job).hold = OnJob(hold.id, hold.user)
