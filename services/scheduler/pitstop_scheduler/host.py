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
    drained: bool = False
    """It is to take no new job."""
    drained_by: str = ""
    drain_serial: int = 0
    """Of the newest `host.drain`."""
    knows: int = 0
    """The newest one that the host has heard of."""
    heard: float = 0.0
    """When it last said its room: seconds since the epoch, by the server's clock."""
    lost: bool = False

    @property
    def places(self) -> int:
        """How many jobs it may be given."""
        return 0 if self.drained else self.capacity
