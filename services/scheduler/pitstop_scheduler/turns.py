"""Whose turn it is: for each pool the orgs with jobs that wait for it, least served first. Derived from the queue.

This is start-time fair queueing (Goyal, Vin, Cheng 1996). The virtual time `V` is the start of the job granted last; an
org's next job starts at `E = max(org.turn, V)`, the earliest start goes first, and each grant moves that of its org by
`1 / weight`. So while an org waits for a place it may have, `E` moves by its grants and by nothing else, and
`V <= E <= V + 1 / weight`. Between two moments, then, it is granted `weight * dV` jobs, less or more than one; for two
orgs that wait all that time, `|n1 / w1 - n2 / w2| <= 1 / w1 + 1 / w2`. If both begin at `E = V`, neither is ahead by
more than one job of its own: `n1 / w1 - n2 / w2 <= 1 / w1`. Who comes back has `E = V`, the earliest there is.

It makes the next grant cheap however many orgs wait: nobody looks at those whose turn has not come, nor at those that
have all the slots they may have.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

Turn = tuple[float, int]
"""Where an org's next job starts; of two at the same point the one that ends first (the heavier org's) goes first. By
name alone a heavy org fell behind by a job for each of the others, whenever they met."""
Place = tuple[Turn, str]
"""An org's turn, and the org."""
_POINT: Final = 6
"""Digits: sums of 1 / weight that are the same point differ in the last bits."""


def turn_at(start: float, weight: int) -> Turn:
    """Of an org whose next job starts there."""
    return round(start, _POINT), -weight


class Turns:
    """Of a state. A place may be earlier than the org's turn is by now, never later."""

    def __init__(self, turn: Callable[[str], Turn | None]) -> None:
        """`turn` says when an org's turn is; None: it has all the slots it may have."""
        self._turn = turn
        self._waiting: dict[str, dict[str, int]] = {}
        """Pool -> org -> jobs."""
        self._totals: Counter[str] = Counter()
        self._heaps: dict[str, list[Place]] = {}
        self._placed: dict[str, dict[str, Turn]] = {}
        """Pool -> org -> its earliest place. A later one of it in the heap is dropped when it comes first."""

    def join(self, pool: str, org: str) -> None:
        """One more job waits."""
        orgs = self._waiting.setdefault(pool, {})
        self._totals[pool] += 1
        orgs[org] = orgs.get(org, 0) + 1
        if orgs[org] == 1:
            self._place(pool, org)

    def leave(self, pool: str, org: str) -> None:
        """One job less waits."""
        orgs = self._waiting[pool]
        self._totals[pool] -= 1
        orgs[org] -= 1
        if not orgs[org]:
            del orgs[org]

    def waiting_for(self, pool: str) -> int:
        """How many jobs of all orgs wait for it."""
        return self._totals[pool]

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
            if self._placed[pool].get(org) != placed:
                heapq.heappop(heap)
            elif turn is None:
                heapq.heappop(heap)
                del self._placed[pool][org]
            elif turn > placed:
                heapq.heapreplace(heap, (turn, org))
                self._placed[pool][org] = turn
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
        placed, turn = self._placed.setdefault(pool, {}), self._turn(org)
        if turn is not None and (org not in placed or turn < placed[org]):  # earlier: it has become heavier
            placed[org] = turn
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

    def waiting_for(self, _pool: str) -> int:
        """Nobody asks a draft."""
        return 0

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
