"""Hosts that gave no sign of life for too long become `sandbox.lost`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from pitstop_common import subjects
from pitstop_common.bucket import Bucket, Entry
from pitstop_common.bus import Bus
from pitstop_common.errors import WrongLastSequence
from pitstop_common.limits import HEARTBEAT_INTERVAL
from pitstop_common.messages import Heartbeat, SandboxLost
from pitstop_common.pull import rfc3339
from pitstop_janitor.collectors.jobs import reconnects
from pitstop_janitor.collectors.saying import say_to_all
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.decide import forget, signs_of_life, unchanged_for, watch
from pitstop_janitor.metrics import JanitorMetrics
from pitstop_janitor.model import Observation, Swept

log = logging.getLogger(__name__)

MISSED_LOOKS = 3
"""So many intervals without a look break an observation: this janitor was stopped, starved or cut off."""
_SUSPECT_AFTER = 3 * HEARTBEAT_INTERVAL

_decode = msgspec.json.Decoder(Heartbeat).decode


class LostHosts:
    """Scans the heartbeats; a watch alone would be blind for seconds after a restart of the server."""

    name = "lost_hosts"

    def __init__(
        self, bus: Bus, metrics: JanitorMetrics, config: JanitorConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus, self._metrics, self._config, self._clock = bus, metrics, config, clock
        self._hosts = Bucket(bus, "hosts")
        self._observation = Observation()

    async def due(self) -> bool:
        """Every few seconds."""
        await asyncio.sleep(self._config.scan_interval)
        return True

    async def sweep(self) -> Swept:
        """One look at all heartbeats."""
        now = self._clock()
        beats = living(await self._hosts.scan())
        self._observation = watch(
            self._observation, signs_of_life(beats), now=now, epoch=reconnects(self._bus),
            max_gap=MISSED_LOOKS * self._config.scan_interval,
        )  # fmt: skip
        lost = unchanged_for(self._observation, self._config.host_lost_after)
        self._metrics.orphans.labels("host").set(len(unchanged_for(self._observation, _SUSPECT_AFTER)))
        freed = 0
        for host in lost:
            freed += await self._end(beats[host])
        self._observation = forget(self._observation, lost)
        return Swept(len(beats), freed)

    async def close(self) -> None:
        """Nothing is held."""

    async def _end(self, beat: Heartbeat) -> bool:
        entry = await self._hosts.get(beat.host)
        if entry is None or entry.value is None or living({beat.host: entry}) != {beat.host: beat}:
            return False  # it came back, or another janitor was first
        log.warning("host %s (%s) is lost: no sign of life", beat.host, beat.incarnation)
        news = await say_to_all(self._bus, lost_host(beat, time.time()), self._config.partitions)
        if news:
            self._metrics.reclaimed.labels("host", "silent").inc()
        try:  # in this order: a crash in between repeats the fact, which is harmless; the other way it would be lost
            await self._hosts.delete(beat.host, entry.revision)
        except WrongLastSequence:
            log.warning("host %s came back as it was called lost", beat.host)
        return news


def living(entries: dict[str, Entry]) -> dict[str, Heartbeat]:
    """The heartbeats by host. What is not one is passed over, and said."""
    found = {}
    for host, entry in entries.items():
        try:
            found[host] = _decode(entry.value or b"")
        except msgspec.DecodeError as error:
            log.warning("the heartbeat of %s is not one: %s", host, error)
    return found


def lost_host(beat: Heartbeat, now: float) -> SandboxLost:
    """All that a host held is lost. `now`: seconds since the epoch, for people."""
    return SandboxLost(
        id=f"lost.{beat.host}.{beat.incarnation}", time=rfc3339(now), org=subjects.NOBODY, run=subjects.NOBODY,
        host=beat.host, incarnation=beat.incarnation,
    )  # fmt: skip
