"""Limits of pools, set. Orgs share pools, so it takes an admin of the deployment."""

from __future__ import annotations

import time
import uuid

from msgspec import UNSET
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api_pools import PoolsApply, PoolsView
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import DECIDED_WITHIN, Caller, Teller, checked
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.reading import Reading


class Pools:
    """The verb about pools."""

    def __init__(self, logs: Logs, teller: Teller, reading: Reading) -> None:
        self._logs, self._teller, self._reading = logs, teller, reading

    async def apply(self, caller: Caller, asked: MicroRequest) -> PoolsView:
        """Set the limits of the pools that are named, one after the other. Raises Wrong; Unavailable: of some
        they may be set, and asking again does no harm."""
        for pool, limits in sorted(checked(asked, PoolsApply).pools.items()):
            fact = m.PoolConfigured(
                id=f"configured.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=subjects.NOBODY,
                run=subjects.NOBODY, pool=pool, slots=None if limits.slots is UNSET else limits.slots,
                by=f"{caller.org}/{caller.actor}",
            )  # fmt: skip
            await self._teller.tell(fact, token=self._logs.sharing(pool)[0])
            await self._logs.limit_is_heard(pool, DECIDED_WITHIN)
        await self._reading.all_fresh()
        return PoolsView(pools=self._reading.pools())
