"""Folds what changes of pools: their limits, and who has which of their places. Pure; part of `fold`."""

from __future__ import annotations

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.model import State
from pitstop_scheduler.pool import Lease


def limit(state: State, change: c.PoolLimit) -> None:
    """Its slots are others."""
    state.edit_pool(change.pool).limit = change.slots


def asked(state: State, change: c.Asked) -> None:
    """This partition has asked, or given back."""
    pool = state.edit_pool(change.pool)
    pool.fresh = 0 if change.returned > pool.returned else pool.fresh
    pool.wants, pool.returned, pool.asks = change.wants, change.returned, change.serial


def shared(state: State, change: c.Shared) -> None:
    """This partition was given places, or told to keep fewer."""
    pool = state.edit_pool(change.pool)
    pool.fresh = 0 if change.over else pool.fresh + change.given - pool.given
    pool.limit = change.limit
    pool.given, pool.target, pool.short, pool.heard = change.given, change.target, change.short, change.serial


def demand(state: State, change: c.Demand) -> None:
    """Another partition has asked, or given back."""
    leases = state.edit_pool(change.pool).leases
    lease = leases.get(change.partition, Lease())
    leases[change.partition] = msgspec.structs.replace(
        lease, wants=change.wants, returned=change.returned, heard=change.serial
    )


def leased(state: State, change: c.Leased) -> None:
    """Another partition is given places, or told to keep fewer."""
    pool = state.edit_pool(change.pool)
    lease = pool.leases.get(change.partition, Lease())
    if change.given > lease.given:
        pool.turn = (change.partition + 1) % state.partitions
    pool.leases[change.partition] = msgspec.structs.replace(
        lease,
        given=change.given,
        target=change.target,
        short=change.short,
        serial=change.serial,
        limit=change.limit,
        over=change.over,
    )
