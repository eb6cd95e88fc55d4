"""Rules for holds: failures that wait for a person who asked for it before. Pure."""

from __future__ import annotations

from pitstop_common import messages as m
from pitstop_common.limits import MAX_HOLD_COUNT, MAX_HOLDS, MAX_HOLDS_KNOWN
from pitstop_scheduler import changes as c
from pitstop_scheduler.hold import armed
from pitstop_scheduler.model import Job, Run
from pitstop_scheduler.tick import Stored, Tick


def set_(tick: Tick, fact: m.HoldSet, _: Stored) -> None:
    """A hold with an id that is known is the same one, said again."""
    now = tick.draft.now
    for hold in tuple(tick.draft.org(fact.org).holds.values()):
        if hold.until <= now:
            tick.emit(c.HoldRemoved(fact.org, hold.id, "", True))
    known = tick.draft.org(fact.org).holds
    live = sum(hold.left > 0 for hold in known.values())
    if fact.hold in known or fact.until <= now or live >= MAX_HOLDS or len(known) >= MAX_HOLDS_KNOWN:
        return
    count, branch = min(max(1, fact.count), MAX_HOLD_COUNT), fact.branch.removeprefix("refs/heads/")
    tick.emit(c.HoldSet(fact.org, fact.hold, fact.project, fact.key, branch, fact.user, fact.by, count, fact.until))


def remove(tick: Tick, fact: m.HoldRemove, _: Stored) -> None:
    hold = tick.draft.org(fact.org).holds.get(fact.hold)
    if hold is not None and hold.left:
        tick.emit(c.HoldRemoved(fact.org, fact.hold, fact.by, False))


def hold_for(tick: Tick, job: Job, run: Run) -> str:
    """The hold that this job starts with; empty: none."""
    holds = tick.draft.org(run.org).holds
    found = armed(holds, run.project, job.key, run.ref, tick.draft.now) if holds else None
    return found.id if found else ""


def failed(tick: Tick, job: Job, fact: m.JobPaused) -> None:
    """The job waits at its first failure. Others may have used the hold up since it started, or somebody removed it:
    then it goes on at once."""
    run = tick.draft.run(job.run)
    if run is None or job.hold is None or job.hold.used or fact.hold != job.hold.id:
        return
    hold = tick.draft.org(run.org).holds.get(job.hold.id)
    if hold is not None and hold.lives(tick.draft.now):
        tick.emit(c.HoldUsed(run.org, hold.id, job.id))
    else:
        tick.emit(c.Continued(job.id, job.attempt, m.HOLD_OVER, fact.id))
