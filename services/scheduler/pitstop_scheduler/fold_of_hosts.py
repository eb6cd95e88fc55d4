"""Folds what changes of hosts. Pure; part of `fold`."""

from __future__ import annotations

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.model import Host, State


def room(state: State, change: c.Room) -> None:
    """It says how many jobs it may hold, and what it is."""
    before = state.host(change.host) or Host(change.host, "", change.pool, 0)
    _put(state, msgspec.structs.replace(
        before, incarnation=change.incarnation, pool=change.pool, capacity=change.capacity, serial=change.serial,
        labels=change.labels, knows=change.knows, heard=state.now, lost=False,
    ))  # fmt: skip


def lost(state: State, change: c.HostLost) -> None:
    """It holds no job any more."""
    host = state.host(change.host)
    if host is not None:
        _put(state, msgspec.structs.replace(host, incarnation=change.incarnation, capacity=0, lost=True))


def drained(state: State, change: c.Drained) -> None:
    """It is to take no new job, or jobs again."""
    host = state.host(change.host)
    if host is not None:
        _put(state, msgspec.structs.replace(
            host, drained=change.on, drain_serial=change.serial, drained_by=change.by if change.on else "",
        ))  # fmt: skip


def _put(state: State, host: Host) -> None:
    before = state.host(host.id)
    if before is not None:
        state.edit_pool(before.pool).capacity -= before.places
    state.put_host(host)
    state.edit_pool(host.pool).capacity += host.places
