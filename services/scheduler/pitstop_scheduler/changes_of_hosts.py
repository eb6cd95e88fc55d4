"""What a decision can change of a host."""

from __future__ import annotations

import msgspec


class Room(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="h"):
    """A host's capacity and labels. 0: it takes no more work."""

    host: str
    incarnation: str
    pool: str
    capacity: int
    serial: int
    labels: tuple[str, ...] = ()
    knows: int = 0
    """The serial of the newest `host.drain` that it has heard of."""


class HostLost(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="z"):
    """A host is gone; its jobs end by changes of their own."""

    host: str
    incarnation: str


class Drained(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="hd"):
    """A host is to take no new job, or jobs again. `tell`: it does not know yet."""

    host: str
    on: bool
    serial: int
    by: str
    tell: bool = True
