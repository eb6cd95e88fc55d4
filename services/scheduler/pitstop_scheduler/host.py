"""A host, as the log has it."""

from __future__ import annotations

import msgspec


class Host(msgspec.Struct):
    """A host that announced room. Never changed in place."""

    id: str
    incarnation: str
    pool: str
    capacity: int
    serial: int = 0
    labels: tuple[str, ...] = ()
