"""What the janitor tells Prometheus."""

from __future__ import annotations

from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pitstop_common.messages import ExpiryReason

_SWEEP_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "session": get_args(ExpiryReason),
    "host": ("silent",),
    "job": ("no_host",),
    "message": ("max_deliveries", "terminated"),
    "attempt": ("ended", "superseded", "unknown"),
    "sandbox": ("no_owner",),
    "folder": ("ended", "superseded", "unknown", "no_owner"),
    "claim": ("stale",),
    "view": ("stale",),
    "heartbeat": ("stale",),
    "consumer": ("stale",),
}
"""Every kind of garbage and why it is reclaimed. Closed, so that the labels are bounded; exported from the start, so
that `rate` sees the first of each."""


class JanitorMetrics:
    """On a registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reclaimed = Counter(
            "pitstop_janitor_reclaimed",
            "What this janitor freed: facts that the log took in, what hosts swept for it, entries that it removed. Of "
            "several janitors the first counts, a repetition does not",
            ["kind", "reason"], registry=registry,
        )  # fmt: skip
        self.orphans = Gauge(
            "pitstop_janitor_orphans", "Under suspicion or waiting to be reclaimed, as this janitor sees it",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.seen = Gauge(
            "pitstop_janitor_seen", "What the last pass looked at", ["collector"], registry=registry
        )  # fmt: skip
        self.last_success = Gauge(
            "pitstop_janitor_last_success_timestamp_seconds", "End of the last pass without an error",
            ["collector"], registry=registry,
        )  # fmt: skip
        self.sweep = Histogram(
            "pitstop_janitor_sweep_seconds", "Length of a pass that had something to look at", ["collector"],
            registry=registry, buckets=_SWEEP_SECONDS,
        )  # fmt: skip
        self.errors = Counter(
            "pitstop_janitor_sweep_errors", "Passes that failed; they are tried again", ["collector"],
            registry=registry,
        )  # fmt: skip
        for kind, reasons in REASONS.items():
            self.orphans.labels(kind)
            for reason in reasons:
                self.reclaimed.labels(kind, reason)
