"""A copy-on-write view of a state: `decide` applies its own changes to a draft to see what they bring about."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import merge
from itertools import chain

import msgspec

from pitstop_scheduler.model import Host, Job, Org, Run, State
from pitstop_scheduler.pool import Pool
from pitstop_scheduler.turns import Touched


class Draft(State):
    """A state as it would be. Only what is touched is copied; the state below is never written."""

    def __init__(self, below: State) -> None:
        super().__init__()
        self.below = below
        self.now, self.watermark = below.now, below.watermark
        self.org_slots, self.project_slots, self.pool_slots = below.org_slots, below.project_slots, below.pool_slots
        self.partition, self.partitions = below.partition, below.partitions
        self.turn, self.placed = below.turn, below.placed
        self.turns = self._touched = Touched()
        self._gone: set[str] = set()
        self._back: set[tuple[str, int]] = set()
        """Queues (org, priority) to which a job has come back: its place is among older ones."""

    def job(self, id: str) -> Job | None:
        return self.jobs.get(id) or self.below.job(id)

    def run(self, id: str) -> Run | None:
        return self.runs.get(id) or self.below.run(id)

    def org(self, id: str) -> Org:
        return self.orgs.get(id) or self.below.org(id)

    def pool(self, id: str) -> Pool:
        return self.pools.get(id) or self.below.pool(id)

    def host(self, id: str) -> Host | None:
        return self.hosts.get(id) or self.below.host(id)

    def living_jobs(self) -> Iterator[Job]:
        for id in {**self.below.jobs, **self.jobs}:
            job = self.job(id)
            if job is not None and job.status != "finished":
                yield job

    def all_hosts(self) -> Iterator[Host]:
        yield from {**self.below.hosts, **self.hosts}.values()

    def source_of(self, run: str) -> str | None:
        living = self.run(run)
        return living.source if living else self.below.source_of(run)

    def waiting(self, org: str) -> Iterator[str]:
        mine = self.queues.get(org, {})
        theirs = self.below.queues.get(org, {})
        for priority in sorted({*mine, *theirs}, reverse=True):
            older = (job for job in theirs.get(priority, ()) if job not in self._gone)
            newer = tuple(mine.get(priority, ()))
            yield from merge(older, newer, key=self.place) if (org, priority) in self._back else chain(older, newer)

    @property
    def touched(self) -> set[str]:
        """Orgs with jobs that came into the queue or left it, with a slot less, or with other limits."""
        return self._touched.orgs

    def waits(self, org: str) -> bool:
        """Is a job of the org in the queue."""
        return next(self.waiting(org), None) is not None

    def visitors(self, org: str) -> Iterator[Job]:
        """The jobs of an org with somebody inside."""
        for id in sorted({*self.below.visited.get(org, ()), *self.visited.get(org, ())}):
            job = self.job(id)
            if job is not None and job.sessions:
                yield job

    def ahead(self, org: str, priority: int) -> int:
        return super().ahead(org, priority) + self.below.ahead(org, priority)

    def edit_job(self, id: str) -> Job:
        if id not in self.jobs:
            self.jobs[id] = msgspec.structs.replace(self.below.jobs[id])
        return self.jobs[id]

    def edit_run(self, id: str) -> Run:
        if id not in self.runs:
            self.runs[id] = msgspec.structs.replace(self.below.runs[id])
        return self.runs[id]

    def edit_org(self, id: str) -> Org:
        if id not in self.orgs:
            below = self.below.org(id)
            self.orgs[id] = msgspec.structs.replace(
                below, projects=dict(below.projects), used_by_project=dict(below.used_by_project)
            )
        return self.orgs[id]

    def edit_pool(self, id: str) -> Pool:
        if id not in self.pools:
            below = self.below.pool(id)
            self.pools[id] = msgspec.structs.replace(below, leases=dict(below.leases))
        return self.pools[id]

    def requeue(self, org: str, priority: int, job: str) -> None:
        super().requeue(org, priority, job)
        self._back.add((org, priority))

    def dequeue(self, org: str, priority: int, job: str) -> None:
        self.queues.get(org, {}).get(priority, OrderedDict()).pop(job, None)
        self._gone.add(job)
        self.touched.add(org)
