"""Rules for sharing the places of a pool between partitions. Pure. See `rooms`."""

from __future__ import annotations

import sys

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.grants import org_limit, pool_limit
from pitstop_scheduler.pool import Lease
from pitstop_scheduler.rooms import fair_shares, fillable, gifts, known_pools, sharer
from pitstop_scheduler.tick import Stored, Tick


def configured(tick: Tick, fact: m.PoolConfigured, _: Stored) -> None:
    """A pool has another limit. Decided where it is shared out; the others are told with what is lent to them."""
    draft = tick.draft
    if sharer(fact.pool, draft.partitions) == draft.partition and fact.slots != draft.pool(fact.pool).limit:
        tick.emit(c.PoolLimit(fact.pool, fact.slots))


def asked(tick: Tick, fact: m.PoolAsked, _: Stored) -> None:
    """Another partition, or this one, wants places, or gives some back."""
    draft = tick.draft
    lease = draft.pool(fact.pool).leases.get(fact.partition, Lease())
    if fact.serial <= lease.heard or sharer(fact.pool, draft.partitions) != draft.partition:
        return
    tick.emit(c.Demand(fact.pool, fact.partition, fact.wants, max(lease.returned, fact.returned), fact.serial))
    if fact.seen < lease.given:  # on its way, or lost with a full stream: the totals once more do no harm
        again = c.Leased(fact.pool, fact.partition, lease.given, lease.target, lease.short, lease.serial + 1,
                         lease.limit, lease.over)  # fmt: skip
        tick.emit(again)


def shared(tick: Tick, fact: m.PoolShared, _: Stored) -> None:
    """This partition is given places, or told to keep fewer."""
    draft, pool = tick.draft, tick.draft.pool(fact.pool)
    if fact.partition == draft.partition and fact.serial > pool.heard:
        limit = pool.limit if sharer(fact.pool, draft.partitions) == draft.partition else fact.limit
        tick.emit(c.Shared(fact.pool, max(pool.given, fact.given), fact.target, fact.short, fact.serial, limit,
                           fact.over))  # fmt: skip


def share_out(tick: Tick) -> None:
    """Before the grants of a tick: give free places to who wants them, and call back what others have a right to."""
    draft = tick.draft
    if draft.partitions == 1:
        return
    for name in known_pools(draft):
        if sharer(name, draft.partitions) == draft.partition and draft.pool(name).leases:
            while _share_out(tick, name):  # a gift moves the turn: whose is to come back is told in the same record
                pass


def _share_out(tick: Tick, name: str) -> bool:
    """True when places were given."""
    draft, pool = tick.draft, tick.draft.pool(name)
    leases = dict(pool.leases)
    total = min(pool.capacity, pool_limit(draft, name) or pool.capacity)
    free = total - sum(lease.held for lease in leases.values())
    over = free < 0  # nobody is to fill any
    wants = {one: 0 if over else lease.wants for one, lease in leases.items()}
    fair = fair_shares(total, wants, pool.turn, draft.partitions)
    given = gifts(leases, fair, free)
    short = over or any(lease.held + given.get(one, 0) < fair[one] for one, lease in leases.items())
    for one, lease in leases.items():
        held = lease.held + given.get(one, 0)
        target = fair[one] if short else max(fair[one], held)
        other = target != lease.target and min(target, lease.target) < held
        told = (short, over) == (lease.short, lease.over) or not held
        if one in given or other or not told or lease.limit != pool.limit:
            more = lease.given + given.get(one, 0)
            tick.emit(c.Leased(name, one, more, target, short, lease.serial + 1, pool.limit, over))
    return bool(given)


def ask(tick: Tick) -> None:
    """After the grants of a tick: give back what is not to be kept, and say what could be filled."""
    draft = tick.draft
    if draft.partitions == 1:
        return
    limits = {}
    for org in {**draft.below.queues, **draft.queues}:
        limit = org_limit(draft, org)
        limits[org] = limit - draft.org(org).used if limit else sys.maxsize
    waiting = fillable(draft, limits)
    for name in known_pools(draft):
        pool = draft.pool(name)
        wants = min(pool.capacity, pool.room + waiting[name])
        surplus = max(0, pool.share - max(pool.room, pool.target))
        more = wants > pool.share and wants != pool.wants
        fewer = wants < pool.wants and (pool.short or wants <= pool.wants // 2)
        if surplus or more or fewer:
            tick.emit(c.Asked(name, wants, pool.returned + surplus, pool.asks + 1))
