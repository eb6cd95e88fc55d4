"""A pool of hosts, as one partition of the log has it, and what of it is lent to which partition."""

from __future__ import annotations

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Places of a pool in the hands of one partition, as the one that shares them out has it. Totals only grow."""

    given: int = 0
    returned: int = 0
    wants: int = 0
    target: int = 0
    short: bool = False
    heard: int = 0
    """The serial of the newest `pool.asked`."""
    serial: int = 0
    limit: int | None = None
    """The limit of the pool that it was told."""
    over: bool = False
    """It was told to fill no place."""

    @property
    def held(self) -> int:
        """Places that are not this one's to give now."""
        return self.given - self.returned


class Pool(msgspec.Struct):
    """Sums over a pool: `capacity` of its hosts; and of this partition, `room` taken on them and `slots` in use. What
    follows is for several partitions: how many places it was given and gave back, in all, and what it said of it."""

    capacity: int = 0
    room: int = 0
    slots: int = 0
    given: int = 0
    returned: int = 0
    target: int = 0
    short: bool = False
    heard: int = 0
    """The serial of the newest `pool.shared`."""
    fresh: int = 0
    """Places that it was given and has not filled yet."""
    wants: int = 0
    asks: int = 0
    leases: dict[int, Lease] = {}
    """Of each partition, where this one shares the pool out."""
    turn: int = 0
    """The partition that is the first to get a place that cannot be divided."""
    limit: int | None = None
    """Slots, as configured: where the pool is shared out, the word that counts; elsewhere, as it was told. None: the
    default of the deployment; 0: no limit."""

    @property
    def share(self) -> int:
        """Places that are this partition's to fill."""
        return self.given - self.returned
