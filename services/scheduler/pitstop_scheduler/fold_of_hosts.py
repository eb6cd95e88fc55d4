"""Folds what changes of hosts. Pure; part of `fold`."""

from __future__ import annotations

import msgspec

from pitstop_scheduler import changes as c
from pitstop_scheduler.model import Host, State


def room(state: State, change: c.Room) -> None:
    """It says how many jobs it may hold, and what it is."""
    _put(state, Host(change.host, change.incarnation, change.pool, change.capacity, change.serial, change.labels))


def lost(state: State, change: c.HostLost) -> None:
    """It holds no job any more."""
    host = state.host(change.host)
    if host is not None:
        _put(state, msgspec.structs.replace(host, incarnation=change.incarnation, capacity=0))


def _put(state: State, host: Host) -> None:
    before = state.host(host.id)
    if before is not None:
        state.edit_pool(before.pool).capacity -= before.capacity
    state.put_host(host)
    state.edit_pool(host.pool).capacity += host.capacity
