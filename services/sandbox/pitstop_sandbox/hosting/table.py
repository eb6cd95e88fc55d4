"""The attempts of this host: how many, which, and the ones that have ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Literal

from pitstop_sandbox.hosting.attempts import Attempt
from pitstop_sandbox.ports import SessionHost

_REMEMBERED: Final = 10_000
"""Ended attempts, so that a message that comes again for one is known for what it is."""


class Table:
    """An attempt takes room from before its claim until nothing of it is left."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._attempts: dict[str, Attempt] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._changed = asyncio.Event()
        self._closed = False
        self.leftovers: tuple[tuple[Literal["sandbox", "folder"], str], ...] = ()
        """What is on this host besides, and could not be removed yet: kind and key."""

    def free(self) -> int:
        """How many more attempts there is room for."""
        return 0 if self._closed else max(0, self._capacity - len(self._attempts))

    @property
    def closed(self) -> bool:
        """Nothing new is taken."""
        return self._closed

    def close(self, closed: bool) -> None:
        """Take nothing new from now on, or take it again. What is there goes on."""
        self._closed = closed
        self._changed.set()

    async def until_free(self) -> None:
        """Returns when there is room."""
        await self._until(lambda: self.free() > 0)

    async def until_empty(self) -> None:
        """Returns when there is no attempt."""
        await self._until(lambda: not self._attempts)

    def enter(self, attempt: Attempt) -> None:
        """It takes room from now on."""
        self._attempts[attempt.key] = attempt

    def leave(self, attempt: Attempt, *, ended: bool) -> None:
        """It takes none any more. `ended`: it ran here, and is over."""
        if self._attempts.get(attempt.key) is attempt:
            del self._attempts[attempt.key]
        attempt.left()
        if ended:
            self.ended(attempt.key)
        self._changed.set()

    def ended(self, key: str) -> None:
        """Remember that nothing is to be done about this attempt any more."""
        self._ended[key] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def get(self, key: str) -> Attempt | None:
        """The attempt of that key, while it is here."""
        return self._attempts.get(key)

    def has_ended(self, key: str) -> bool:
        """Has this attempt ended here, as far as is remembered."""
        return key in self._ended

    def find(self, job: str) -> SessionHost | None:
        """The running job of that id, for its sessions."""
        running = [one for one in self if one.start.job == job and one.runner is not None]
        return max(running, key=lambda one: one.start.attempt).runner if running else None

    def count(self, *, paused: bool) -> int:
        """How many attempts are paused, or not."""
        return sum(one.paused == paused for one in self)

    def inventory(self) -> tuple[tuple[str, int], ...]:
        """Job and attempt of each."""
        return tuple((attempt.start.job, attempt.start.attempt) for attempt in self)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._attempts.values()))

    def __len__(self) -> int:
        return len(self._attempts)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()
