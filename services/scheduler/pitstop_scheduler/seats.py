"""Who takes which partitions: each scheduler a fair part of them, by how many schedulers live.

Each keeps a key `member.<name>` in the bucket `owners` that expires. This spreads work and is not what safety is built
on: two that count differently for a moment meet at the liveness key of a partition, and behind that at its fence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Final

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, WrongLastSequence
from pitstop_common.limits import OWNER_TTL

log = logging.getLogger(__name__)

_MEMBER: Final = "member."
_ALIVE: Final = b"1"
_LOOK: Final = 0.25
"""Seconds between two looks at who lives."""
_RENEW: Final = 2
"""One's own key is renewed at every such look."""


class Seats:
    """Those of one scheduler."""

    def __init__(self, bus: Bus, owner: str, partitions: int = 1) -> None:
        self._bucket = Bucket(bus, "owners")
        self._key, self._partitions = _MEMBER + owner, partitions
        self._revision = 0
        self._mine: set[int] = set()
        self.members = 0
        """Schedulers that live, this one among them; 0: nobody has looked yet."""

    @property
    def share(self) -> int:
        """How many partitions one may have at most."""
        return math.ceil(self._partitions / self.members) if self.members else 0

    def may_take(self, partition: int) -> bool:
        """Is there a seat left for it. With one partition there always is: who comes first has it."""
        return self._partitions == 1 or partition in self._mine or len(self._mine) < self.share

    def take(self, partition: int) -> None:
        """It is this scheduler's, or is about to be."""
        self._mine.add(partition)

    def leave(self, partition: int) -> None:
        """It is not any more."""
        self._mine.discard(partition)

    def too_many(self, partition: int) -> bool:
        """Others have joined, and this is one that is to be given back."""
        if self._partitions == 1 or not self.members:
            return False
        return partition in sorted(self._mine)[self.share :]

    async def run(self, stopping: asyncio.Event) -> None:
        """Live, and look who else does, until told to stop; then the others know at once."""
        if self._partitions == 1:
            return
        looks = 0
        try:
            while not stopping.is_set():
                try:
                    if looks % _RENEW == 0:
                        await self._renew()
                    self._count(await self._living())
                    looks += 1
                except PitstopError as error:
                    log.debug("cannot see who lives: %s", error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await stopping.wait()
        finally:
            with contextlib.suppress(PitstopError):
                await self._bucket.delete(self._key, ttl=OWNER_TTL)

    async def _renew(self) -> None:
        try:
            self._revision = await self._bucket.swap(self._key, _ALIVE, self._revision, ttl=OWNER_TTL)
        except WrongLastSequence:  # it expired, or the answer to an earlier renewal was lost
            entry = await self._bucket.get(self._key)
            self._revision = await self._bucket.swap(
                self._key, _ALIVE, entry.revision if entry else 0, ttl=OWNER_TTL
            )  # fmt: skip

    async def _living(self) -> int:
        names = await self._bucket.names(_MEMBER + "*")
        entries = await asyncio.gather(*(self._bucket.get(name) for name in names))
        others = {name for name, entry in zip(names, entries, strict=True) if entry and entry.value == _ALIVE}
        return len(others | {self._key})

    def _count(self, members: int) -> None:
        if members != self.members:
            self.members = members
            log.info("%s schedulers live: at most %s of %s partitions each", members, self.share, self._partitions)
