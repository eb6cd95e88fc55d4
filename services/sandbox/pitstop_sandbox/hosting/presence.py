"""How the host shows that it is there: its room, its heartbeat; and what it does when nobody can see either."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError
from pitstop_common.messages import Heartbeat, SandboxRoom, encode
from pitstop_common.pull import rfc3339
from pitstop_common.subjects import NOBODY
from pitstop_common.telemetry import VERSION
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.hosting.drained import Drained, read_drained, write_drained
from pitstop_sandbox.hosting.metrics import HostMetrics
from pitstop_sandbox.hosting.table import Table
from pitstop_sandbox.sinks import store_for_all

log = logging.getLogger(__name__)

ROOM_EVERY: Final = 60.0
_LOOK: Final = 0.1
"""How often a return of NATS is looked for, seconds."""


def _now() -> float:
    """Seconds, counted also while this machine is suspended: others go on counting."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Presence:
    """One for each incarnation of a host."""

    def __init__(self, bus: Bus, config: SandboxConfig, host: str, incarnation: str, backend: str, table: Table,
                 metrics: HostMetrics, seen: Callable[[], None]) -> None:  # fmt: skip
        """`backend`: its name. `seen` is called with each heartbeat that is stored."""
        self._bus, self._config, self._table, self._metrics = bus, config, table, metrics
        self._backend = backend
        self._labels = tuple(sorted({*config.all_labels, backend}))
        self._host, self._incarnation = host, incarnation
        self._hosts = Bucket(bus, "hosts")
        self._stopping = False
        self._drained = read_drained(config.dir)
        self._table.close(self._drained.on)
        self._rooms = 0
        self._beat = 0
        self._silences = 0
        self._seen = seen
        self._wake = asyncio.Event()
        self._words = 0
        """How often it was told whether to take jobs."""
        metrics.capacity.set(self._room())

    # -- room ------------------------------------------------------------------------------------------------------

    async def announce(self) -> None:
        """Say how many jobs this host may hold. Returns when it is stored."""
        self._rooms += 1
        await store_for_all(self._bus, SandboxRoom(
            id=f"{self._host}.{self._incarnation}.room.{self._rooms}", time=rfc3339(time.time()), org=NOBODY,
            run=NOBODY, host=self._host, incarnation=self._incarnation, pool=self._config.pool,
            capacity=self._room(), serial=self._rooms, labels=self._labels,
            drained=self._drained.on, drain_serial=self._drained.serial,
        ), self._config.partitions)  # fmt: skip

    async def rooms(self) -> None:
        """Announce now, again whenever NATS or this host comes back or is told whether to take jobs, and once a minute.
        Ends only by cancellation."""
        while True:
            known = self._returns()
            await self.announce()
            due = time.monotonic() + ROOM_EVERY
            while self._returns() == known and time.monotonic() < due:
                before = len(self._table)
                await asyncio.sleep(_LOOK)
                if self._table.closed and before and not len(self._table):
                    self._wake.set()  # somebody may wait for the last job

    def _returns(self) -> tuple[int, int, int]:
        """How often NATS came back, this host after it may have been called lost, and the word on its jobs."""
        return self._bus.nc.stats["reconnects"], self._silences, self._words

    def _room(self) -> int:
        return 0 if self._table.closed else self._config.capacity

    def told(self, drained: Drained) -> None:
        """Take no new job, or jobs again. Returns when it is on disk; an older word than the last means nothing."""
        if drained.serial > self._drained.serial:
            write_drained(self._config.dir, drained)
            self._drained = drained
            self._close(drained.on or self._stopping)
            log.info("takes %s (host.drain %s)", "no new job" if drained.on else "jobs again", drained.serial)

    def stop(self) -> None:
        """Take no more in this life; the next announcement and heartbeat say so."""
        self._stopping = True
        self._close(True)

    def _close(self, closed: bool) -> None:
        self._table.close(closed)
        self._metrics.capacity.set(self._room())
        self._words += 1
        self._wake.set()

    # -- heartbeat -------------------------------------------------------------------------------------------------

    def heartbeat(self) -> Heartbeat:
        """The sign of life as it is now."""
        return Heartbeat(
            host=self._host, incarnation=self._incarnation, pool=self._config.pool,
            capacity=self._config.capacity, beat=self._beat, jobs=self._table.inventory(),
            leftovers=self._table.leftovers, draining=self._table.closed, labels=self._labels,
            backend=self._backend, version=VERSION,
        )  # fmt: skip

    async def hearts(self, alone: Callable[[], None]) -> None:
        """Beat. `alone` is called once each time no beat was stored for the grace time: by then others may be about
        to take this host for lost, and its jobs must not go on. Ends only by cancellation."""
        stored = _now()
        told = False
        while True:
            begun = _now()
            told = told or self._check(stored, alone)  # before the beat: this process itself may have been stopped
            self._beat += 1
            try:
                await self._hosts.put(self._host, encode(self.heartbeat()))
                stored = begun
                self._seen()
                self._silences += told
                told = False
            except PitstopError as error:
                log.debug("no heartbeat: %s", error)
                told = told or self._check(stored, alone)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.heartbeat_interval):
                    await self._wake.wait()

    def _check(self, stored: float, alone: Callable[[], None]) -> bool:
        if _now() - stored <= self._config.orphan_grace:
            return False
        alone()
        return True

    async def leave(self) -> None:
        """This host is gone for good, with nothing left on it. Best effort."""
        with contextlib.suppress(PitstopError):
            await self._hosts.delete(self._host)
