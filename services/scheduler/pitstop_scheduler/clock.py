"""The one clock: the server's. That of a service may be off by minutes, and decides nothing."""

from __future__ import annotations

from datetime import datetime

from nats.js.errors import APIError

from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.streams import IN


async def server_clock(bus: Bus) -> float:
    """Seconds since the epoch, by the server that leads IN, whose time stamps facts have. Raises Unavailable."""
    try:
        told = str((await bus.api(f"STREAM.INFO.{IN}", {}))["ts"])
        return datetime.fromisoformat(told[:26].rstrip("Z") + "+00:00").timestamp()
    except (APIError, KeyError, ValueError) as error:
        raise Unavailable(f"the server does not say what time it is: {error}") from error
