"""What a host's configuration says of its jobs."""

from __future__ import annotations

import msgspec

from pitstop_sandbox.backends.port import Limits
from pitstop_sandbox.channels.ready import Wishes
from pitstop_sandbox.source.wish import CheckoutLimits


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How jobs run on this host. `grace`: seconds between TERM and KILL of a step that ran too long."""

    workspace: str = "/home/runner/work"
    limits: Limits = Limits()
    checkout: CheckoutLimits = CheckoutLimits()
    grace: float = 10.0
    wishes: Wishes | None = None
