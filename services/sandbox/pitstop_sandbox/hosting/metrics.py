"""The host's own metrics. Labels are closed sets: no ids, no text of a message."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from pitstop_common.messages import HostFact, SandboxFailed, SandboxReady
from pitstop_common.telemetry import ServiceMetrics

_START_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_ENDS_START: Final = (SandboxReady, SandboxFailed)
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


class HostMetrics:
    """On the service's registry."""

    def __init__(self, service: ServiceMetrics, backend: str) -> None:
        self._messages = service.messages
        self._backend = backend
        self._started: dict[str, float] = {}
        registry = service.registry
        self._start = Histogram(
            "pitstop_sandbox_start_seconds", "From the start of a job to its sandbox", ["backend"],
            registry=registry, buckets=_START_SECONDS,
        )  # fmt: skip
        self._errors = Counter(
            "pitstop_sandbox_errors", "Sandboxes that failed", ["op", "error_type"], registry=registry
        )
        self._swept = Counter(
            "pitstop_sandbox_swept", "Leftovers that the host ended or removed by itself", ["kind", "reason"],
            registry=registry,
        )  # fmt: skip
        self._jobs = Gauge("pitstop_sandbox_jobs", "Jobs on this host", ["state"], registry=registry)
        self.capacity = Gauge("pitstop_sandbox_capacity", "Jobs at once; 0 while draining", registry=registry)
        lines = Counter("pitstop_log_lines", "Lines of output stored", registry=registry)
        self.lines: Callable[[int], None] = lines.inc
        self._start.labels(backend)

    def count_jobs(self, count: Callable[[bool], int]) -> None:
        """Where the numbers of paused and running jobs come from."""
        self._jobs.labels("running").set_function(lambda: count(False))
        self._jobs.labels("paused").set_function(lambda: count(True))

    def error(self, op: str, error_type: str) -> None:
        """Something of a sandbox failed: create, run, adopt, remove."""
        self._errors.labels(op, error_type if _CODE.match(error_type) else "other").inc()

    def swept(self, kind: str, reason: str) -> None:
        """A sandbox or folder without an owner is gone."""
        self._swept.labels(kind, reason).inc()

    def claimed(self, key: str, begun: float) -> None:
        """An attempt is claimed here whose start came at `begun`, by the monotonic clock."""
        self._started[key] = begun

    def fact(self, fact: HostFact) -> None:
        """Hear of a stored fact."""
        since = self._started.pop(f"{fact.job}.{fact.attempt}", None) if _ends_start(fact) else None
        if since is not None and isinstance(fact, SandboxReady):
            self._start.labels(self._backend).observe(time.monotonic() - since)
        if isinstance(fact, SandboxFailed):
            self.error("create" if since is not None else "run", fact.reason)

    @contextmanager
    def handling(self, handler: str) -> Iterator[Outcome]:
        """Times the handling of one message; its outcome is what was done with it last, `error` if it raised."""
        begun = time.monotonic()
        outcome = Outcome()
        try:
            yield outcome
        except Exception:
            outcome.name = "error"
            raise
        finally:
            self._messages.labels(handler, outcome.name).observe(time.monotonic() - begun)


class Outcome:
    """ack, nak, term or error."""

    name = "ack"


def _ends_start(fact: HostFact) -> bool:
    return isinstance(fact, _ENDS_START)
