"""The queues of all orgs: by priority (highest first), then by age. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from itertools import takewhile


class Queues(ABC):
    """Ids of queued jobs. A job that comes back finds its old place."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[int, OrderedDict[str, None]]] = {}

    @abstractmethod
    def place(self, job: str) -> tuple[int, int]:
        """When it came: sorts the jobs of a queue."""

    def waiting(self, org: str) -> Iterator[str]:
        """The queued jobs of an org, next first."""
        queues = self.queues.get(org, {})
        for priority in sorted(queues, reverse=True):
            yield from queues[priority]

    def waiting_orgs(self) -> Iterator[str]:
        """Orgs with queued jobs."""
        yield from self.queues

    def ahead(self, org: str, priority: int) -> int:
        """How many queued jobs of an org go before a new one of that priority."""
        return sum(len(jobs) for rank, jobs in self.queues.get(org, {}).items() if rank >= priority)

    def enqueue(self, org: str, priority: int, job: str) -> None:
        """Last in its priority."""
        self.queues.setdefault(org, {}).setdefault(priority, OrderedDict())[job] = None

    def requeue(self, org: str, priority: int, job: str) -> None:
        """Back to its old place: before those of its priority that came after it."""
        queue = self.queues.setdefault(org, {}).setdefault(priority, OrderedDict())
        mine = self.place(job)
        older = list(takewhile(lambda other: self.place(other) < mine, queue))
        queue[job] = None
        for id in (job, *reversed(older)):
            queue.move_to_end(id, last=False)

    def dequeue(self, org: str, priority: int, job: str) -> None:
        """Out of the queue; no error when it is not in it."""
        queues = self.queues.get(org, {})
        if priority in queues:
            queues[priority].pop(job, None)
            if not queues[priority]:
                del queues[priority]
                if not queues:
                    del self.queues[org]
