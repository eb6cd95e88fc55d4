"""The janitor's settings."""

from __future__ import annotations

from pitstop_common.config import ServiceConfig
from pitstop_common.limits import (
    CLAIMS_KEPT,
    CONSUMERS_KEPT,
    HEARTBEAT_INTERVAL,
    HEARTBEATS_KEPT,
    HOST_LOST_AFTER,
    VIEWS_KEPT,
)


class JanitorConfig(ServiceConfig, frozen=True, kw_only=True):
    """Seconds. `PITSTOP_HOST_LOST_AFTER` must stay above the holders' own patience (90 s): a host called lost while
    its jobs still run would let them run twice."""

    scan_interval: float = HEARTBEAT_INTERVAL
    """Between two looks at the heartbeats."""
    jobs_interval: float = 10.0
    """Between two looks at jobs without a host."""
    host_lost_after: float = HOST_LOST_AFTER
    """Of unbroken observation without a sign of life."""
    inventory_interval: float = 30.0
    """Between two comparisons of what hosts hold with what the log wants."""
    inventory_grace: float = 60.0
    """So long something has no owner before its host is asked to sweep it."""
    stale_interval: float = 600.0
    """Between two looks for what nobody asks for any more."""
    claims_kept: float = CLAIMS_KEPT
    views_kept: float = VIEWS_KEPT
    heartbeats_kept: float = HEARTBEATS_KEPT
    consumers_kept: float = CONSUMERS_KEPT
    """Ages, by the server's time stamps."""
