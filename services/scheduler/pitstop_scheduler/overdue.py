"""Looks for deadlines that should have come and did not, and arms them once more."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError
from pitstop_scheduler.clock import server_clock
from pitstop_scheduler.effects import overdue
from pitstop_scheduler.log import Log

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 30.0
LATE: Final = 15.0
"""Seconds after its time from which a deadline is taken for lost: a janitor that is busy needs some."""


async def watch(bus: Bus, log_: Log, *, every: float = LOOK_EVERY, late: float = LATE) -> None:
    """For as long as this process owns the log. A deadline armed twice is harmless: the fold knows its revision."""
    while True:
        await asyncio.sleep(every)
        try:
            for effect in overdue(log_.state, await server_clock(bus) - late, secrets.token_hex(4)):
                log.warning("a deadline did not come, and is armed again: %s", effect.subject)
                await bus.store(*effect[:3])
        except PitstopError as error:
            log.warning("deadlines that did not come are looked for later: %s", error)
