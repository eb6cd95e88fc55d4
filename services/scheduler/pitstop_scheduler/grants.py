"""The fair queue: weighted turns between orgs, priority and age inside one, limits of org, project and pool.

Waiting happens here and nowhere else: a start leaves only when a host of its pool has room.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from pitstop_scheduler.draft import Draft
from pitstop_scheduler.model import Job, State
from pitstop_scheduler.rooms import places
from pitstop_scheduler.turns import Place, turn_at

_LOOK_AHEAD: Final = 1000
"""How many jobs of one org that cannot run now are passed over in one tick."""
_SHOWN: Final = 5
"""Hosts that are named where many may be meant."""


def org_limit(state: State, org: str) -> int:
    """Slots of an org; 0 = no limit."""
    own = state.org(org).slots
    return state.org_slots if own is None else own


def project_limit(state: State, org: str, project: str) -> int:
    """Slots of a project; 0 = no limit."""
    return state.org(org).projects.get(project, state.project_slots)


def pool_limit(state: State, pool: str) -> int:
    """Slots of a pool; 0 = no limit."""
    own = state.pool(pool).limit
    return state.pool_slots if own is None else own


def reason_to_wait(state: State, job: Job) -> str:
    """Why this job cannot be granted now; empty when it can."""
    run = state.run(job.run)
    assert run is not None
    org = state.org(run.org)
    limit = org_limit(state, run.org)
    if limit and org.used >= limit:
        return _all_used(limit, f"org {run.org}")
    limit = project_limit(state, run.org, run.project)
    if limit and org.used_by_project.get(run.project, 0) >= limit:
        return _all_used(limit, f"project {run.project}")
    reason = _pool_reason(state, job.pool)
    return reason + _drained(state, job.pool) if reason == _nobody_up(job.pool) else reason


def _pool_reason(state: State, name: str) -> str:
    pool = state.pool(name)
    limit = pool_limit(state, name)
    if limit and pool.slots >= limit:
        return _all_used(limit, f"pool {name}")
    if pool.capacity <= 0:
        return _nobody_up(name)
    if pool.room >= places(state, name):
        return _no_room(state, name)
    return ""


def _nobody_up(name: str) -> str:
    return f"no sandbox host of pool {name} is up"


def _drained(state: State, name: str) -> str:
    found = sorted(host.id for host in state.all_hosts() if host.pool == name and host.drained)
    return f" (drained: {', '.join(found[:_SHOWN])}{', …' * (len(found) > _SHOWN)})" if found else ""


def _no_room(state: State, name: str) -> str:
    pool = state.pool(name)
    if state.partitions == 1:
        return f"the hosts of pool {name} have no room (all {pool.capacity} places are taken)"
    if 0 < (limit := pool_limit(state, name)) < pool.capacity:
        return (f"no slot of pool {name} is free (of its {limit}, {places(state, name)} are now for this org's"
                f" partition {state.partition}, and in use)")  # fmt: skip
    return (f"the hosts of pool {name} have no room (of their {pool.capacity} places, {places(state, name)} are now for"
            f" this org's partition {state.partition}, and taken)")  # fmt: skip


def _all_used(limit: int, of: str) -> str:
    return f"the only slot of {of} is in use" if limit == 1 else f"all {limit} slots of {of} are in use"


def next_jobs(draft: Draft, *, everybody: bool) -> Iterator[Job]:
    """The jobs to grant, in order. The caller applies each grant to `draft` before it asks for the next.

    After a tick no job waits that could be granted. So in the next one only those are looked at that may be by what it
    brought: of orgs that it touched, and, where a pool has room that had none, of all that wait for it. `everybody`:
    of all orgs, because the limits may be others since.
    """
    open_ = {name for name in {**draft.below.pools, **draft.pools} if not _pool_reason(draft, name)}
    anew = [pool for pool in sorted(open_) if everybody or _pool_reason(draft.below, pool)]
    turns = _Round(draft, heapq.merge(*map(draft.below.turns.walk, anew)))
    queues: dict[str, Iterator[str]] = {}
    while open_ and (org := turns.next()):
        job = _first_that_fits(draft, queues.setdefault(org, draft.waiting(org)), org, open_)
        if job is not None:
            yield job
            turns.put(org)
            if _pool_reason(draft, job.pool):
                open_.discard(job.pool)


class _Round:
    """Orgs in the order of their turns: those that a tick touched, and others as far as they are asked for."""

    def __init__(self, draft: Draft, others: Iterator[Place]) -> None:
        self._draft, self._others = draft, others
        self._known = set(draft.touched)
        self._heap = [self._place(org) for org in self._known]
        heapq.heapify(self._heap)
        self._following = next(others, None)

    def next(self) -> str | None:
        """The org whose turn it is; it is not named again until it is put back."""
        while self._following is not None and (not self._heap or self._following <= self._heap[0]):
            _, org = self._following
            self._following = next(self._others, None)
            if org not in self._known:
                self._known.add(org)
                self.put(org)
        return heapq.heappop(self._heap)[1] if self._heap else None

    def put(self, org: str) -> None:
        """It may have another turn."""
        heapq.heappush(self._heap, self._place(org))

    def _place(self, id: str) -> Place:
        org = self._draft.org(id)
        return turn_at(org.turn, org.weight), id


def _first_that_fits(draft: Draft, queue: Iterator[str], org: str, open_: set[str]) -> Job | None:
    limit = org_limit(draft, org)
    if limit and draft.org(org).used >= limit:
        return None
    for _, id in zip(range(_LOOK_AHEAD), queue, strict=False):
        job = draft.job(id)
        if job is not None and job.pool in open_ and not reason_to_wait(draft, job):
            return job
    return None
