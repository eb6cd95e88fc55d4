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


class HostLost(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="z"):
    """A host is gone; its jobs end by changes of their own."""

    host: str
    incarnation: str
