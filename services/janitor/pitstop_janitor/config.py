"""The janitor's settings."""

from __future__ import annotations

from pitstop_common.config import ServiceConfig
from pitstop_common.limits import HEARTBEAT_INTERVAL, HOST_LOST_AFTER


class JanitorConfig(ServiceConfig, frozen=True, kw_only=True):
    """Seconds. `PITSTOP_HOST_LOST_AFTER` must stay above the holders' own patience (90 s): a host called lost while
    its jobs still run would let them run twice."""

    scan_interval: float = HEARTBEAT_INTERVAL
    """Between two looks at the heartbeats."""
    jobs_interval: float = 10.0
    """Between two looks at jobs without a host."""
    host_lost_after: float = HOST_LOST_AFTER
    """Of unbroken observation without a sign of life."""
