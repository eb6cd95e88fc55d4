"""How the places of a pool are shared between the partitions of the log. Pure. With one partition there is no sharing.

A pool's places are shared out by one partition (the hash of the pool's name says which). Another asks it for places
(`pool.asked`) and is given some (`pool.shared`); they are its own to fill until it gives them back. Both sides count
in totals that only grow, so that facts may come twice, late or in another order: what is in all hands together is
never more than the pool has, and a place is never in two hands. Idle places stay where they are until others want
them; then each partition keeps its fair part only, and gives the rest back as it comes free. A place that it was given
beyond that (one that cannot be divided goes round) it may fill once.

A pool's limit is known where the pool is shared out: no more is lent than it allows. When it is lowered, or hosts go,
and more is lent than there may be, all give back what they have not filled, and nobody fills a place until what is lent
is within the limit again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Final

from pitstop_common import messages as m
from pitstop_common.subjects import NOBODY, partition_of
from pitstop_scheduler import changes as c
from pitstop_scheduler.draft import Draft
from pitstop_scheduler.model import Org, State
from pitstop_scheduler.pool import Lease

LOOK_AHEAD: Final = 1000
"""How many jobs of one org are looked at to see what it could fill."""


def places(state: State, name: str) -> int:
    """How many jobs of this partition may be on hosts of the pool."""
    pool = state.pool(name)
    if state.partitions == 1:
        return pool.capacity
    return max(0, min(pool.capacity, pool.share, max(pool.target, pool.room + pool.fresh)))


def sharer(pool: str, partitions: int) -> int:
    """The partition that shares a pool out."""
    return partition_of(pool, partitions)


def known_pools(draft: Draft) -> list[str]:
    """Every pool that has hosts, or that a job was for, in a fixed order."""
    return sorted({*draft.below.pools, *draft.pools})


def fair_shares(total: int, wants: Mapping[int, int], turn: int, partitions: int) -> dict[int, int]:
    """Divide `total` places: nobody gets more than it wants, and nobody less than another unless it wants less. What
    cannot be divided goes to the partitions from `turn` on."""
    shares = dict.fromkeys(wants, 0)
    hungry = sorted((one for one in wants if wants[one] > 0), key=lambda one: (one - turn) % partitions)
    left = max(0, total)
    while left and hungry:
        each = max(1, left // len(hungry))
        for one in hungry:
            more = min(each, wants[one] - shares[one], left)
            shares[one] += more
            left -= more
        hungry = [one for one in hungry if shares[one] < wants[one]]
    return shares


def gifts(leases: Mapping[int, Lease], fair: Mapping[int, int], free: int) -> dict[int, int]:
    """Who gets how many of the free places now: who has least goes first."""
    found = {}
    for one in sorted(leases, key=lambda one: leases[one].held):
        more = min(free, fair[one] - leases[one].held)
        if more > 0:
            found[one] = more
            free -= more
    return found


def fillable(state: State, limits: Mapping[str, int]) -> Counter[str]:
    """How many waiting jobs of each pool wait for room and for nothing else; counted up to the pool's capacity.
    `limits`: slots that each waiting org may still take."""
    found: Counter[str] = Counter()
    for org, left in limits.items():
        projects: Counter[str] = Counter()
        for id in islice(state.waiting(org), LOOK_AHEAD):
            if left <= 0:
                break
            job = state.job(id)
            run = state.run(job.run) if job else None
            if job is None or run is None or found[job.pool] >= state.pool(job.pool).capacity:
                continue
            if _project_full(state, state.org(org), run.project, projects):
                continue
            projects[run.project] += 1
            found[job.pool] += 1
            left -= 1
    return found


def _project_full(state: State, org: Org, project: str, more: Counter[str]) -> bool:
    limit = org.projects.get(project, state.project_slots)
    return bool(limit) and org.used_by_project.get(project, 0) + more[project] >= limit


def fact_for(state: State, change: c.Asked | c.Leased, id: str, time: str) -> tuple[int, m.PoolAsked | m.PoolShared]:
    """What a committed change says to which partition."""
    pool = state.pool(change.pool)
    if isinstance(change, c.Asked):
        return sharer(change.pool, state.partitions), m.PoolAsked(
            id=id, time=time, org=NOBODY, run=NOBODY, pool=change.pool, partition=state.partition, wants=change.wants,
            returned=change.returned, seen=pool.given, serial=change.serial,
        )  # fmt: skip
    return change.partition, m.PoolShared(
        id=id, time=time, org=NOBODY, run=NOBODY, pool=change.pool, partition=change.partition, given=change.given,
        target=change.target, short=change.short, serial=change.serial, limit=change.limit,
        over=change.over,
    )  # fmt: skip
