"""The queues of all orgs: by priority (highest first), then by age. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile

from pitstop_scheduler.turns import Touched, Turn, Turns


class Queues(ABC):
    """Ids of queued jobs. A job that comes back finds its old place."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[int, OrderedDict[str, None]]] = {}
        self.turns: Turns | Touched = Turns(self.turn_of)
        """Follows from the queues and the orgs."""

    @abstractmethod
    def turn_of(self, id: str) -> Turn | None:
        """When an org is served next; None: it has all the slots it may have."""

    @abstractmethod
    def pool_of(self, job: str) -> str:
        """What a queued job waits for."""

    @abstractmethod
    def place(self, job: str) -> tuple[int, int]:
        """When it came: sorts the jobs of a queue."""

    def waiting(self, org: str) -> Iterator[str]:
        """The queued jobs of an org, next first."""
        queues = self.queues.get(org, {})
        for priority in sorted(queues, reverse=True):
            yield from queues[priority]

    def ahead(self, org: str, priority: int) -> int:
        """How many queued jobs of an org go before a new one of that priority."""
        return sum(len(jobs) for rank, jobs in self.queues.get(org, {}).items() if rank >= priority)

    def enqueue(self, org: str, priority: int, job: str) -> None:
        """Last in its priority."""
        self.queues.setdefault(org, {}).setdefault(priority, OrderedDict())[job] = None
        self.turns.join(self.pool_of(job), org)

    def requeue(self, org: str, priority: int, job: str) -> None:
        """Back to its old place: before those of its priority that came after it."""
        queue = self.queues.setdefault(org, {}).setdefault(priority, OrderedDict())
        mine = self.place(job)
        older = list(takewhile(lambda other: self.place(other) < mine, queue))
        queue[job] = None
        for id in (job, *reversed(older)):
            queue.move_to_end(id, last=False)
        self.turns.join(self.pool_of(job), org)

    def dequeue(self, org: str, priority: int, job: str) -> None:
        """Out of the queue; no error when it is not in it."""
        queues = self.queues.get(org, {})
        if job in queues.get(priority, ()):
            del queues[priority][job]
            self.turns.leave(self.pool_of(job), org)
            if not queues[priority]:
                del queues[priority]
                if not queues:
                    del self.queues[org]
