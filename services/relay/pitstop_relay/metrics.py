"""What the relay counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SETUP_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 30)


class Passed(Collector):
    """Bytes of SSH messages passed on. One thread counts, without a lock: it does so for each key that is typed."""

    def __init__(self) -> None:
        self.up = self.down = 0

    def collect(self) -> Iterator[Metric]:
        """As a counter."""
        family = CounterMetricFamily(
            "pitstop_relay_bytes", "SSH messages passed on: up to the sandbox, down to the client",
            labels=["direction"],
        )  # fmt: skip
        family.add_metric(["up"], self.up)
        family.add_metric(["down"], self.down)
        yield family


class RelayMetrics:
    """On a registry that is passed in: two relays can live in one test."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge("pitstop_relay_sessions", "Connections that are logged in", registry=registry)
        self.connections = Gauge("pitstop_relay_connections", "Connections, logged in or not", registry=registry)
        self.links = Gauge("pitstop_relay_links", "Links from sandbox hosts", registry=registry)
        self.auth = Counter(
            "pitstop_relay_auth", "Logins by what became of them", ["method", "result"], registry=registry
        )
        self.slowed = Counter(
            "pitstop_relay_auth_slowed", "Refusals that came late, after too many from one address", registry=registry
        )
        self.closed = Counter(
            "pitstop_relay_sessions_closed", "Sessions that ended, by reason", ["reason"], registry=registry
        )
        self.passed = Passed()
        registry.register(self.passed)
        self.setup = Histogram(
            "pitstop_relay_session_setup_seconds", "From the connection to the first output",
            buckets=_SETUP_SECONDS, registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "pitstop_relay_connections_refused", "Connections over a limit", ["limit"], registry=registry
        )
