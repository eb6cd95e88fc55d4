"""A second book-keeping of the decision log: who holds what, by the changes alone. No rule of the scheduler in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from pitstop_common.limits import RETRIES
from pitstop_scheduler import changes as c


class Books:
    """Take every change, in order; `wrong` says what cannot be."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.orgs: dict[str, str] = {}
        """Of each run."""
        self.jobs: dict[str, tuple[str, ...]] = {}
        """Of each run."""
        self.results: dict[str, str] = {}
        """Of each run that ended."""
        self.ended: dict[str, tuple[str, str]] = {}
        """Result and reason of each job that ended."""
        self.granted: Counter[tuple[str, int]] = Counter()
        self.attempts: dict[str, int] = {}
        """The newest of each job."""
        self.retried: dict[str, str] = {}
        """Why attempts (`<job>.<attempt>`) were lost whose job was tried again."""
        self.claims: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
        """Host and incarnation, one after the other, of each attempt."""
        self.lost: set[str] = set()
        """Incarnations of hosts."""
        self.revisions: dict[str, int] = {}
        """Of each job's newest deadline."""
        self._owner: dict[str, tuple[str, str, str]] = {}
        self._slots: dict[str, tuple[str, str, str]] = {}
        self._rooms: dict[str, str] = {}
        self._limits: dict[str, c.Limits] = {}
        self._hosts: dict[str, tuple[str, int]] = {}
        self._handlers: dict[type[Any], Callable[[Any, int], None]] = {
            c.Queued: self._queued, c.Granted: self._granted, c.Claimed: self._claimed, c.Stopped: self._stopped,
            c.Ended: self._ended, c.RunEnded: self._run_ended, c.Limits: self._limited, c.Room: self._room,
            c.HostLost: self._host_lost, c.Retried: self._lost_attempt, c.Deadline: self._deadline,
        }  # fmt: skip

    @property
    def held(self) -> int:
        """Slots in use, and rooms on hosts."""
        return len(self._slots) + len(self._rooms)

    def take(self, change: c.AnyChange, record: int) -> None:
        """One more."""
        handler = self._handlers.get(type(change))
        if handler is not None:
            handler(change, record)

    def settle(self) -> None:
        """There is no more."""
        for job in sorted({*self._slots, *self._rooms}):
            self._say(0, f"job {job} holds {'a slot' if job in self._slots else 'room on a host'} for ever")

    def _queued(self, change: c.Queued, record: int) -> None:
        if change.run in self.orgs:
            self._say(record, f"run {change.run} is queued again")
        self.orgs[change.run] = change.org
        self.jobs[change.run] = tuple(job for job, *_ in change.jobs)
        for job, _, pool, _ in change.jobs:
            self._owner[job] = change.org, change.project, pool

    def _granted(self, change: c.Granted, record: int) -> None:
        self.granted[change.job, change.attempt] += 1
        self.attempts[change.job] = change.attempt
        if change.job in self._slots or change.job in self.ended:
            self._say(record, f"job {change.job} gets a slot, and has one, or has ended")
        org, project, pool = self._slots[change.job] = self._owner[change.job]
        self._rooms[change.job] = pool
        limits = self._limits.get(org)
        used = [one for one in self._slots.values() if one[0] == org]
        if limits and limits.slots and len(used) > limits.slots:
            self._say(record, f"org {org} holds {len(used)} slots of {limits.slots}")
        of_project = limits.projects.get(project, 0) if limits else 0
        if of_project and sum(one[1] == project for one in used) > of_project:
            self._say(record, f"project {org}/{project} holds more than {of_project} slots")
        capacity = sum(room for of, room in self._hosts.values() if of == pool)
        if sum(of == pool for of in self._rooms.values()) > capacity:
            self._say(record, f"pool {pool} holds more than its {capacity} places")

    def _claimed(self, change: c.Claimed, record: int) -> None:
        key = (change.job, change.attempt)
        if any(host != change.host for host, _ in self.claims[key]):
            self._say(record, f"job {change.job} goes from host to host: {self.claims[key]}, {change.host}")
        self.claims[key].append((change.host, change.incarnation))

    def _stopped(self, change: c.Stopped, record: int) -> None:
        if self._slots.pop(change.job, None) is None:
            self._say(record, f"job {change.job} gives back a slot that it has not")

    def _lost_attempt(self, change: c.Retried, record: int) -> None:
        key = f"{change.job}.{change.attempt}"
        if self._slots.pop(change.job, None) is None or self._rooms.pop(change.job, None) is None:
            self._say(record, f"the lost attempt {key} gives back a slot or a place that it has not")
        if change.attempt != self.attempts[change.job] or change.attempt > RETRIES:
            self._say(record, f"attempt {key} is tried again, and is not the one, or was it before")
        self.retried[key] = change.reason

    def _ended(self, change: c.Ended, record: int) -> None:
        if change.job in self.ended:
            self._say(record, f"job {change.job} ends again")
        self.ended[change.job] = change.result, change.reason
        self._slots.pop(change.job, None)
        self._rooms.pop(change.job, None)

    def _run_ended(self, change: c.RunEnded, record: int) -> None:
        if change.run in self.results:
            self._say(record, f"run {change.run} ends again")
        if any(job not in self.ended for job in self.jobs.get(change.run, ())):
            self._say(record, f"run {change.run} ends before its jobs")
        self.results[change.run] = change.result

    def _limited(self, change: c.Limits, _: int) -> None:
        self._limits[change.org] = change

    def _room(self, change: c.Room, _: int) -> None:
        self._hosts[change.host] = change.pool, change.capacity

    def _deadline(self, change: c.Deadline, _: int) -> None:
        if change.reason:
            self.revisions[change.job] = change.revision

    def _host_lost(self, change: c.HostLost, _: int) -> None:
        self.lost.add(change.incarnation)

    def _say(self, record: int, text: str) -> None:
        self.wrong.append(f"record {record}: {text}" if record else text)
