"""One decision in the making, and what its rules share. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.deadlines import due
from pitstop_scheduler.draft import Draft
from pitstop_scheduler.fold import apply
from pitstop_scheduler.model import Job, State

_WORST_FIRST: Final[tuple[m.Result, ...]] = ("error", "failure", "timeout", "cancellation", "success", "skip")


class Stored(NamedTuple):
    """A fact as it lies in IN: its sequence and the server's time stamp (seconds)."""

    sequence: int
    time: float
    fact: m.Fact


class Decision(NamedTuple):
    """What a tick changes, and how far it has read."""

    changes: tuple[c.AnyChange, ...]
    watermark: int
    now: float


class Tick:
    """One decision in the making: changes are applied to a draft as they come."""

    def __init__(self, state: State) -> None:
        self.draft = Draft(state)
        self.changes: list[c.AnyChange] = []

    def emit(self, change: c.AnyChange) -> None:
        """Decide on a change."""
        apply(self.draft, change)
        self.changes.append(change)


def of_claimant(tick: Tick, fact: m.HostFact) -> Job | None:
    job = tick.draft.job(fact.job)
    if job is None or job.status == "finished" or job.attempt != fact.attempt:
        return None
    if fact.serial and fact.serial <= job.serial:
        return None
    return job if (job.host, job.incarnation) == (fact.host, fact.incarnation) else None


def end(tick: Tick, job: Job, result: m.Result, reason: str, cause: str) -> None:
    tick.emit(c.Ended(job.id, job.attempt, result, reason, cause))
    rearm(tick, job.id)
    run = tick.draft.run(job.run)
    assert run is not None
    jobs = [tick.draft.job(id) for id in run.jobs]
    if all(one is not None and one.status == "finished" for one in jobs):
        worst = min((one for one in jobs if one is not None), key=lambda one: _WORST_FIRST.index(one.result or "error"))
        tick.emit(c.RunEnded(run.id, worst.result or "error", worst.reason, cause))


def rearm(tick: Tick, id: str) -> None:
    job = tick.draft.job(id)
    run = tick.draft.run(job.run) if job else None
    if job is None or run is None:
        return
    wanted = due(job, run, tick.draft.org(run.org))
    armed = (job.deadline_reason, job.deadline, job.warn_at)
    if armed != (wanted.reason or "", wanted.at, wanted.warn_at):
        tick.emit(c.Deadline(id, wanted.reason or "", wanted.at, wanted.warn_at, job.revision + 1))


def report(tick: Tick, job: Job, fact: m.HostFact, report: m.JobReport | None, message: str) -> None:
    if report is not None or message:
        data = msgspec.json.encode(report or m.JobReport())
        tick.emit(c.Reported(job.id, job.attempt, fact.serial, data, message))
