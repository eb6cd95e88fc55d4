"""Whose turn it is: for each pool the orgs with jobs that wait for it, least served first. Derived from the queue.

It makes the next grant cheap however many orgs wait: nobody looks at those whose turn has not come, nor at those that
have all the slots they may have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

Place = tuple[float, str]
"""An org's turn, and the org."""


class Turns:
    """Of a state. A place may be earlier than the org's turn is by now, never later."""

    def __init__(self, turn: Callable[[str], float | None]) -> None:
        """`turn` says when an org's turn is; None: it has all the slots it may have."""
        self._turn = turn
        self._waiting: dict[str, dict[str, int]] = {}
        """Pool -> org -> jobs."""
        self._heaps: dict[str, list[Place]] = {}
        self._placed: dict[str, set[str]] = {}

    def join(self, pool: str, org: str) -> None:
        """One more job waits."""
        orgs = self._waiting.setdefault(pool, {})
        orgs[org] = orgs.get(org, 0) + 1
        if orgs[org] == 1:
            self._place(pool, org)

    def leave(self, pool: str, org: str) -> None:
        """One job less waits."""
        orgs = self._waiting[pool]
        orgs[org] -= 1
        if not orgs[org]:
            del orgs[org]

    def eligible(self, org: str) -> None:
        """An org has a slot less, or other limits: it may have slots that it could not have before."""
        for pool, orgs in self._waiting.items():
            if org in orgs:
                self._place(pool, org)

    def all_eligible(self) -> None:
        """The limits of many orgs are others."""
        for pool, orgs in self._waiting.items():
            for org in orgs:
                self._place(pool, org)

    def served(self, pool: str) -> None:
        """A job was granted: put the first places right."""
        heap, orgs = self._heaps.get(pool, []), self._waiting.get(pool, {})
        while heap:
            placed, org = heap[0]
            turn = self._turn(org) if org in orgs else None
            if turn is None:
                heapq.heappop(heap)
                self._placed[pool].discard(org)
            elif turn > placed:
                heapq.heapreplace(heap, (turn, org))
            else:
                return

    def walk(self, pool: str) -> Iterator[Place]:
        """The places of a pool in order. Nothing is changed, and no more is looked at than is asked for."""
        heap = self._heaps.get(pool, [])
        ahead = [(heap[0], 0)] if heap else []
        while ahead:
            place, at = heapq.heappop(ahead)
            yield place
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heapq.heappush(ahead, (heap[child], child))

    def _place(self, pool: str, org: str) -> None:
        placed, turn = self._placed.setdefault(pool, set()), self._turn(org)
        if turn is not None and org not in placed:
            placed.add(org)
            heapq.heappush(self._heaps.setdefault(pool, []), (turn, org))


class Touched:
    """Of a draft: which orgs a tick has to look at."""

    def __init__(self) -> None:
        self.orgs: set[str] = set()

    def join(self, _pool: str, org: str) -> None:
        """One more job waits."""
        self.orgs.add(org)

    def leave(self, _pool: str, org: str) -> None:
        """One job less waits."""
        self.orgs.add(org)

    def eligible(self, org: str) -> None:
        """It has a slot less, or other limits."""
        self.orgs.add(org)

    def all_eligible(self) -> None:
        """Defaults are not decided on: an owner commits them before its first tick."""

    def served(self, pool: str) -> None:
        """Who grants knows."""

    def walk(self, _pool: str) -> Iterator[Place]:
        """No places."""
        return iter(())
