"""The scheduler's metrics. Gauges of the fleet are exported by one process only: the owner of partition 0, which has
the folds of all partitions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from pitstop_common.telemetry import ServiceMetrics
from pitstop_scheduler import changes as c
from pitstop_scheduler.model import State
from pitstop_scheduler.transitions import HOLDS_SLOT

WAIT: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
DURATION: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
ACCEPT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_OBSERVE_EVERY: Final = 0.5
_SPEAKER: Final = 0
"""The partition whose owner exports what is true of the fleet, hosts and their places above all."""
_SESSION_ENDS: Final = frozenset({"idle", "connect_window", "max_duration", "pressure"})


class Metrics:
    """All of them, on the registry of this process."""

    def __init__(self, common: ServiceMetrics) -> None:
        self._common = common
        registry = common.registry

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.requests = counter("pitstop_run_requests", "Requests taken in, by what became of them", ("result",))
        self.accept = histogram("pitstop_run_accept_seconds", "From the request's time stamp to its acceptance", ACCEPT)
        self.owner = gauge(
            "pitstop_scheduler_owner", "1 when this process speaks for the fleet: it owns the log of partition 0"
        )
        self.owned = gauge("pitstop_scheduler_partitions_owned", "Decision logs that this process owns")
        self.secrets = counter(
            "pitstop_secrets_fetches", "Hosts that asked for the secrets of a job, by what became of it", ("result",)
        )
        self.decisions = counter("pitstop_decisions", "Changes committed to the log")
        self.waiting = gauge("pitstop_runs_waiting", "Jobs in the queue", ("pool",))
        self.oldest = gauge(
            "pitstop_queue_oldest_timestamp_seconds", "When the oldest queued job came; 0: none waits", ("pool",)
        )
        self.slots = gauge("pitstop_slots", "Places on the hosts that are up", ("pool",))
        self.in_use = gauge("pitstop_slots_in_use", "Slots held, by what they are used for", ("pool", "use"))
        self.sessions = gauge("pitstop_sessions", "People's connections that are open")
        self.wait = histogram("pitstop_run_queue_wait_seconds", "From the queue to a slot", WAIT, ("pool",))
        self.starts = counter("pitstop_starts", "Jobs that were given a slot", ("pool",))
        self.ended = counter("pitstop_sessions_ended", "Debug sessions that ended, by why", ("reason",))
        self.completed = counter("pitstop_runs_completed", "Jobs that ended, by result", ("pool", "result"))
        self.duration = histogram(
            "pitstop_run_duration_seconds", "From the slot to the end", DURATION, ("pool", "result")
        )
        self._pools: set[str] = set()
        self._observed = 0.0
        self._mine: set[int] = set()

    def handled(self, handler: str, outcome: str, seconds: float) -> None:
        """One message was handled."""
        self._common.messages.labels(handler, outcome).observe(seconds)

    def count(self, record: c.Record, state: State) -> None:
        """Count what a record that this process committed says."""
        self.decisions.inc(len(record.changes))
        for change in record.changes:
            if isinstance(change, c.Granted):
                job = state.job(change.job)
                if job is not None:
                    self.starts.labels(job.pool).inc()
                    self.wait.labels(job.pool).observe(max(0.0, change.waited))
            elif isinstance(change, c.Duplicate):
                self.requests.labels("duplicate").inc()
            elif isinstance(change, c.Ended):
                self._count_end(change, state)
            elif isinstance(change, c.Stopped | c.Continued) and change.reason in _SESSION_ENDS:
                self.ended.labels(change.reason).inc()
            elif isinstance(change, c.Left):
                self.ended.labels(_known_reason(change.reason)).inc()

    def _count_end(self, change: c.Ended, state: State) -> None:
        job = state.job(change.job)
        if job is not None:
            self.completed.labels(job.pool, change.result).inc()
            if job.granted:
                self.duration.labels(job.pool, change.result).observe(max(0.0, job.finished - job.granted))

    def own(self, partition: int) -> None:
        """This process decides for a partition."""
        self._mine.add(partition)
        self.owned.set(len(self._mine))

    def observe(self, states: Sequence[State]) -> None:
        """Set the gauges from the folds of all partitions, at most twice a second; nothing, where another speaks."""
        if _SPEAKER not in self._mine or time.monotonic() - self._observed < _OBSERVE_EVERY:
            return
        self._observed = time.monotonic()
        self.owner.set(1)
        held: dict[tuple[str, str], int] = {}
        waiting: dict[str, int] = {}
        oldest: dict[str, float] = {}
        sessions = 0
        for job in chain.from_iterable(state.jobs.values() for state in states):
            if job.status == "queued":
                waiting[job.pool] = waiting.get(job.pool, 0) + 1
                oldest[job.pool] = min(oldest.get(job.pool, job.queued), job.queued)
            elif job.status in HOLDS_SLOT:
                use = "debug" if job.status == "paused" else "run"
                held[job.pool, use] = held.get((job.pool, use), 0) + 1
                sessions += len(job.sessions)
        self._pools |= set(waiting) | set(states[_SPEAKER].pools)
        for pool in self._pools:
            self.waiting.labels(pool).set(waiting.get(pool, 0))
            self.oldest.labels(pool).set(oldest.get(pool, 0))
            self.slots.labels(pool).set(states[_SPEAKER].pool(pool).capacity)
            for use in ("run", "debug"):
                self.in_use.labels(pool, use).set(held.get((pool, use), 0))
        self.sessions.set(sessions)

    def disown(self, partition: int) -> None:
        """Another process decides for a partition now, and perhaps speaks for the fleet."""
        self._mine.discard(partition)
        self.owned.set(len(self._mine))
        if partition != _SPEAKER:
            return
        self._observed = 0.0
        self.owner.set(0)
        self.sessions.set(0)
        for metric in (self.waiting, self.oldest, self.slots, self.in_use):
            metric.clear()


def _known_reason(reason: str) -> str:
    return reason if reason in {"exit", "disconnect", "expired", "stopped"} else "other"
