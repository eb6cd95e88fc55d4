"""The logs of all partitions. Every scheduler follows each, so that it can answer any question and take over any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.ids import run_of_job
from pitstop_common.subjects import nobodies, partition_of
from pitstop_scheduler.log import Log
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot_store import EVERY


class Logs:
    """One a partition. An org, and all its runs, is in one."""

    def __init__(self, bus: Bus, partitions: int = 1, snapshot_every: int = EVERY) -> None:
        self._all = [Log(bus, number, snapshot_every) for number in range(partitions)]

    def __iter__(self) -> Iterator[Log]:
        yield from self._all

    def of(self, org: str) -> Log:
        """The one that decides on an org."""
        return self._all[partition_of(org, len(self._all))]

    def sharing(self, pool: str) -> tuple[str, Log]:
        """The one that shares a pool out, and the token that brings a fact about no org to it."""
        partition = partition_of(pool, len(self._all))
        return nobodies(len(self._all))[partition], self._all[partition]

    def state(self, org: str) -> State:
        """The fold of that."""
        return self.of(org).state

    def having(self, run: str) -> Log | None:
        """The one in whose fold a run, or the run of a job, lives now."""
        id = run_of_job(run)
        return next((log for log in self._all if log.state.run(id) is not None), None)

    async def current(self, run: str, within: float) -> None:
        """Until everything is folded that is now in the log that a run, or the run of a job, lives in; in all, when it
        is in no fold or none is named. Raises Unavailable after `within` seconds."""
        having = self.having(run)
        wanted = self._all if having is None else [having]
        try:
            async with asyncio.timeout(within):
                await asyncio.gather(*(_read_up(log) for log in wanted))
        except TimeoutError:
            raise Unavailable("this scheduler has not read the log to its end") from None

    async def fresh(self, org: str, within: float) -> None:
        """Until everything about an org is folded that is now in its log, where another process appends to it. Raises
        Unavailable after `within` seconds."""
        await self._read_up([self.of(org)], within)

    async def all_fresh(self, within: float) -> None:
        """As `fresh`, of all orgs."""
        await self._read_up(self._all, within)

    async def limit_is_heard(self, pool: str, within: float) -> None:
        """Until all that places of a pool are lent to know its limit of now: from then on no grant takes the pool above
        it. Raises Unavailable after `within` seconds."""
        leases = self.sharing(pool)[1].state.pool(pool).leases
        told = [(self._all[number], lease.serial) for number, lease in leases.items() if lease.serial]
        try:
            async with asyncio.timeout(within):
                for log, serial in told:
                    await log.until(partial(_has_heard, log, pool, serial))
        except TimeoutError:
            raise Unavailable(f"the limit of pool {pool} is set, and not known to all partitions yet") from None

    async def _read_up(self, logs: list[Log], within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await asyncio.gather(*(_read_up(log) for log in logs if log.standby))
        except TimeoutError:
            raise Unavailable("this scheduler has not read the log to its end") from None

    async def close(self) -> None:
        """Stop following."""
        await asyncio.gather(*(log.close() for log in self._all))


def _has_heard(log: Log, pool: str, serial: int) -> bool:
    return log.state.pool(pool).heard >= serial


async def _read_up(log: Log) -> None:
    head = await log.head()
    await log.until(lambda: log.read_to >= head)
