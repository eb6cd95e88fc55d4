"""What a log proves when it is folded again, change by change: each thing that is wrong is told with its record.

Records go in, words come out. No rule of `decide` is in it; the fold it shares with the product.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import begin, step
from pitstop_scheduler.grants import org_limit, pool_limit, project_limit
from pitstop_scheduler.model import Job, Run, State
from pitstop_scheduler.pool import Lease
from pitstop_scheduler.transitions import HOLDS_ROOM, HOLDS_SLOT, IllegalTransition
from pitstop_scheduler.views import job_view, run_view

_ATTEMPTS: Final = 10
_OF_RUN: Final = ("status", "result", "finished")
_OF_JOB: Final = ("status", "result", "reason", "attempt", "host", "incarnation", "use", "deadline", "revision",
                  "finished")  # fmt: skip

Model = dict[str, Any]
"""Fields of a read model that must be as the log has them."""


class Checker:
    """Folds records and collects what is wrong."""

    def __init__(self, start: State | None = None) -> None:
        self.state = state = start or State()
        self.start = state.head
        """Proved from behind this record on; 0: from the beginning."""
        self.wrong: list[str] = []
        self.records = 0
        self.granted = {(job.id, job.attempt) for job in state.jobs.values() if job.attempt}
        self.ended = {*state.known, *(run.id for run in state.runs.values() if run.result)}
        self.queued = {*state.known, *state.runs}
        self._past: dict[str, Model] = {}
        self._last_end: dict[str, int] = {}

    def take(self, sequence: int, record: c.Record) -> None:
        """One record, in order."""
        self.records += 1
        if record.after >= 0 and record.after != self.state.head:
            self._say(sequence, f"comes after record {record.after}, the one before it here is {self.state.head}")
        if record.watermark < self.state.watermark or record.epoch < self.state.epoch:
            self._say(sequence, "goes back: its watermark or epoch is below an earlier one")
        begin(self.state, record, sequence)
        for change in record.changes:
            told = len(self.wrong)
            self._before(sequence, change)
            try:
                step(self.state, change, sequence)
            except (IllegalTransition, KeyError, AssertionError) as error:
                if len(self.wrong) == told:
                    self._say(sequence, f"{_name(change)} cannot be folded: {error!r}")
            else:
                self._after(sequence, change)
        self._forget(sequence, record.published_to)

    def models(self) -> dict[str, Model]:
        """What each read model must hold, by its key; those of runs that the fold has forgotten, too."""
        found = dict(self._past)
        for run in self.state.runs.values():
            found |= self._models_of(run)
        return found

    # -- each change -----------------------------------------------------------------------------------------------

    def _before(self, sequence: int, change: c.AnyChange) -> None:
        """What cannot be, seen against all that came before."""
        if isinstance(change, c.Queued):
            self._queue(sequence, change)
        elif isinstance(change, c.Granted):
            if (change.job, change.attempt) in self.granted:
                self._say(sequence, f"job {change.job} attempt {change.attempt} is granted a second time")
            self.granted.add((change.job, change.attempt))
        elif isinstance(change, c.RunEnded):
            if change.run in self.ended:
                self._say(sequence, f"run {change.run} ends a second time")
            self.ended.add(change.run)
        elif isinstance(change, c.Leased):
            self._lend(sequence, change)
        elif isinstance(change, c.Claimed | c.Stopped | c.Retried | c.Ended):
            self._of_job(sequence, change, self.state.job(change.job))

    def _queue(self, sequence: int, change: c.Queued) -> None:
        if self.state.source_of(change.run) is not None:
            self._say(sequence, f"run {change.run} is queued a second time")
        elif change.run in self.queued:  # so long after its end that it may come again
            self.ended.discard(change.run)
            self.granted -= {(job, attempt) for job, *_ in change.jobs for attempt in range(1, _ATTEMPTS)}
        self.queued.add(change.run)

    def _lend(self, sequence: int, change: c.Leased) -> None:
        """A loan is the moment in which a pool's limit must hold where partitions share it: each fills what it has."""
        pool = self.state.pool(change.pool)
        more = change.given - pool.leases.get(change.partition, Lease()).given
        lent = sum(lease.held for lease in pool.leases.values()) + more
        allowed = min(pool.capacity, pool_limit(self.state, change.pool) or pool.capacity)
        if more > 0 and lent > allowed:
            self._say(sequence, f"{lent} places of pool {change.pool} are lent with {more} to partition "
                                f"{change.partition}; its hosts and its limit allow {allowed}")  # fmt: skip

    def _of_job(self, sequence: int, change: c.Claimed | c.Stopped | c.Retried | c.Ended, job: Job | None) -> None:
        if job is None:
            return
        if job.attempt != change.attempt:
            self._say(sequence, f"{_name(change)} is about attempt {change.attempt}; it is at {job.attempt}")
        if isinstance(change, c.Claimed) and job.host not in {"", change.host}:
            self._say(sequence, f"job {job.id} goes from host {job.host} to {change.host} in one attempt")
        if isinstance(change, c.Ended):
            self._last_end[job.run] = sequence
            if job.status == "finished":
                self._say(sequence, f"job {job.id} ends a second time, and gives its slot back again")
        elif isinstance(change, c.Stopped | c.Retried) and job.status not in HOLDS_SLOT:
            self._say(sequence, f"job {job.id} gives back a slot that it does not hold: it is {job.status}")

    def _after(self, sequence: int, change: c.AnyChange) -> None:
        if isinstance(change, c.Granted):
            self._limits(sequence, self.state.jobs[change.job])
        elif isinstance(change, c.RunEnded):
            jobs = {job: self.state.jobs[job].status for job in self.state.runs[change.run].jobs}
            if living := [job for job, status in jobs.items() if status != "finished"]:
                self._say(sequence, f"run {change.run} ends before its jobs: {', '.join(living)}")

    def _limits(self, sequence: int, job: Job) -> None:
        """A grant is the one moment in which a limit must hold: one that is lowered kills nothing."""
        state, run = self.state, self.state.runs[job.run]
        org, pool = state.org(run.org), state.pool(job.pool)
        places, whose = (pool.share, "theirs") if state.partitions > 1 else (pool.capacity, "there")
        for what, used, limit in (
            (f"org {run.org}", org.used, org_limit(state, run.org)),
            (f"project {run.org}/{run.project}", org.used_by_project.get(run.project, 0),
             project_limit(state, run.org, run.project)),
            (f"pool {job.pool}", pool.slots, pool_limit(state, job.pool)),
        ):  # fmt: skip
            if limit and used > limit:
                self._say(sequence, f"{what} holds {used} slots with job {job.id}; its limit is {limit}")
        if pool.room > places:
            self._say(sequence, f"{pool.room} jobs are on hosts of pool {job.pool} with job {job.id}; "
                                f"{places} places are {whose}")  # fmt: skip

    def _forget(self, sequence: int, published_to: int) -> None:
        try:
            for run in self.state.ending(published_to):
                self._past |= self._models_of(run)
            self.state.forget(published_to)
        except KeyError as error:
            self._say(sequence, f"a run cannot be forgotten: {error!r}")

    def _models_of(self, run: Run) -> dict[str, Model]:
        found = {f"{run.org}.{run.id}": _fields(run_view(run, 0), _OF_RUN)}
        for id in run.jobs:
            found[f"{run.org}.{run.id}.{id}"] = _fields(job_view(self.state.jobs[id], run, 0), _OF_JOB)
        return found

    # -- in the end ------------------------------------------------------------------------------------------------

    def sums(self) -> None:
        """The counters that are kept agree with the jobs they count, and every run whose jobs are over has ended."""
        counted: dict[str, int] = {}
        kept: dict[str, int] = {}
        for job in self.state.jobs.values():
            run = self.state.runs[job.run]
            slot, room = job.status in HOLDS_SLOT, job.status in HOLDS_ROOM
            for name, one in (
                (f"org {run.org} counts {{}} slots", slot),
                (f"project {run.org}/{run.project} counts {{}} slots", slot),
                (f"pool {job.pool} counts {{}} slots", slot), (f"pool {job.pool} counts {{}} places", room),
            ):  # fmt: skip
                counted[name] = counted.get(name, 0) + one
        for name, org in self.state.orgs.items():
            kept[f"org {name} counts {{}} slots"] = org.used
            kept |= {f"project {name}/{one} counts {{}} slots": used for one, used in org.used_by_project.items()}
        for name, pool in self.state.pools.items():
            kept[f"pool {name} counts {{}} slots"] = pool.slots
            kept[f"pool {name} counts {{}} places"] = pool.room
        for name in sorted({*kept, *counted}):
            if kept.get(name, 0) != counted.get(name, 0):
                self.wrong.append(f"{name.format(kept.get(name, 0))} in use, its jobs hold {counted.get(name, 0)}")
        for run in self.state.runs.values():
            if not run.result and all(self.state.jobs[job].status == "finished" for job in run.jobs):
                self._say(self._last_end.get(run.id, 0), f"the last job of run {run.id} ends, and the run does not")

    def _say(self, sequence: int, text: str) -> None:
        self.wrong.append(f"record {sequence}: {text}")


def _fields(view: msgspec.Struct, names: tuple[str, ...]) -> Model:
    return {name: getattr(view, name) for name in names}


def _name(change: c.AnyChange) -> str:
    about = getattr(change, "job", "") or getattr(change, "run", "") or getattr(change, "host", "")
    return f"{type(change).__name__} of {about}" if about else type(change).__name__
