"""The fair queue: weighted turns between orgs, priority and age inside one, limits of org, project and pool.

Waiting happens here and nowhere else: a start leaves only when a host of its pool has room.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from pitstop_scheduler.model import Job, State

_LOOK_AHEAD: Final = 1000
"""How many jobs of one org that cannot run now are passed over in one tick."""


def org_limit(state: State, org: str) -> int:
    """Slots of an org; 0 = no limit."""
    own = state.org(org).slots
    return state.org_slots if own is None else own


def project_limit(state: State, org: str, project: str) -> int:
    """Slots of a project; 0 = no limit."""
    return state.org(org).projects.get(project, state.project_slots)


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
    return _pool_reason(state, job.pool)


def _pool_reason(state: State, name: str) -> str:
    pool = state.pool(name)
    if state.pool_slots and pool.slots >= state.pool_slots:
        return _all_used(state.pool_slots, f"pool {name}")
    if pool.capacity <= 0:
        return f"no sandbox host of pool {name} is up"
    if pool.room >= pool.capacity:
        return f"the hosts of pool {name} have no room (all {pool.capacity} places are taken)"
    return ""


def _all_used(limit: int, of: str) -> str:
    return f"the only slot of {of} is in use" if limit == 1 else f"all {limit} slots of {of} are in use"


def next_jobs(state: State) -> Iterator[Job]:
    """The jobs to grant, in order. The caller applies each grant to `state` before it asks for the next."""
    if not any(not _pool_reason(state, name) for name in _pools(state)):
        return
    turns = [(max(state.org(org).turn, state.turn), org) for org in state.waiting_orgs()]
    heapq.heapify(turns)
    queues = {org: state.waiting(org) for _, org in turns}
    while turns:
        _, org = heapq.heappop(turns)
        job = _first_that_fits(state, queues[org], org)
        if job is not None:
            yield job
            heapq.heappush(turns, (max(state.org(org).turn, state.turn), org))


def _pools(state: State) -> set[str]:
    return {host.pool for host in state.all_hosts()}


def _first_that_fits(state: State, queue: Iterator[str], org: str) -> Job | None:
    limit = org_limit(state, org)
    if limit and state.org(org).used >= limit:
        return None
    for _, id in zip(range(_LOOK_AHEAD), queue, strict=False):
        job = state.job(id)
        if job is not None and not reason_to_wait(state, job):
            return job
    return None
