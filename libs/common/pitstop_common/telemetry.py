"""Trace context in message headers, and the metrics that every service has."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

VERSION: Final = "0.1.0"
TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_spans: Final = random.Random()
"""Ids of spans are no secret, and each message takes one: the kernel need not be asked for them."""
_HANDLER_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def new_trace() -> str:
    """A W3C traceparent of a new, sampled trace."""
    return f"00-{_spans.getrandbits(128) or 1:032x}-{_spans.getrandbits(64) or 1:016x}-01"


def trace_of(headers: Mapping[str, str] | None) -> str:
    """The traceparent in headers of any letter case; empty when there is none or it is malformed."""
    for name, value in (headers or {}).items():
        if name.lower() == TRACEPARENT and _FORM.match(value):
            return value
    return ""


def child(trace: str) -> str:
    """The same trace with a new span id: one hop further. A new trace when `trace` is none."""
    form = _FORM.match(trace)
    if form is None:
        return new_trace()
    return f"00-{form[1]}-{_spans.getrandbits(64) or 1:016x}-{form[3]}"


def headers(message_id: str, trace: str = "") -> dict[str, str]:
    """The headers of a stored message: its id for deduplication, and the trace one hop on."""
    found = {"Nats-Msg-Id": message_id}
    if trace:
        found[TRACEPARENT] = child(trace)
    return found


class ServiceMetrics:
    """Metrics of every service, on a registry of their own: two services can live in one test."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        build = Gauge("pitstop_build_info", "The version that runs", ["service", "version"], registry=registry)
        build.labels(service, VERSION).set(1)
        self.ready = Gauge("pitstop_ready", "1 when the service takes work", registry=registry)
        self.draining = Gauge("pitstop_draining", "1 while the service stops", registry=registry)
        self.connected = Gauge("pitstop_nats_connected", "1 while NATS is connected", registry=registry)
        self.reconnects = Counter("pitstop_nats_reconnects", "Times NATS came back", registry=registry)
        self.lag = Histogram(
            "pitstop_event_loop_lag_seconds", "How late the event loop ran", registry=registry,
            buckets=_HANDLER_SECONDS,
        )  # fmt: skip
        self.messages = Histogram(
            "pitstop_message_process_seconds", "Handling of one message", ["handler", "outcome"],
            registry=registry, buckets=_HANDLER_SECONDS,
        )  # fmt: skip
