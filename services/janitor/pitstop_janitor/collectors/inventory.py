"""What hosts hold and the log does not want: attempts that are over, sandboxes and folders without any."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.messages import SweepReply, SweepRequest, encode
from pitstop_janitor.collectors.jobs import OpenJobs, reconnects
from pitstop_janitor.collectors.lost_hosts import MISSED_LOOKS, living
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.decide import forget, inventory, ownerless, unchanged_for, watch
from pitstop_janitor.metrics import JanitorMetrics
from pitstop_janitor.model import Held, Observation, Swept

log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 10.0
"""A host asks the log about each key, and waits until its attempts have written down that they end."""
_AT_ONCE: Final = 100
"""Keys of one request."""

_decode = msgspec.json.Decoder(SweepReply).decode


class Inventory:
    """Compares the inventories in the heartbeats with the read models. What has had no owner for a while the host is
    asked to sweep; the host decides, by what the log says then."""

    name = "inventory"

    def __init__(
        self, bus: Bus, metrics: JanitorMetrics, config: JanitorConfig, jobs: OpenJobs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._bus, self._metrics, self._config, self._jobs, self._clock = bus, metrics, config, jobs, clock
        self._hosts = Bucket(bus, "hosts")
        self._observation = Observation()

    async def due(self) -> bool:
        """Every half minute."""
        await asyncio.sleep(self._config.inventory_interval)
        return True

    async def sweep(self) -> Swept:
        """One look at all that hosts hold."""
        now = self._clock()
        beats = living(await self._hosts.scan())
        await self._jobs.follow()  # after the heartbeats: a job that is new to them is not new here
        held = inventory(beats.values())
        self._observation = watch(
            self._observation, ownerless(held, self._jobs.views), now=now, epoch=reconnects(self._bus),
            max_gap=MISSED_LOOKS * self._config.inventory_interval,
        )  # fmt: skip
        self._count(held)
        due = unchanged_for(self._observation, self._config.inventory_grace)
        freed = 0
        for host, keys in by_host(held[one] for one in due).items():
            freed += await self._ask(host, keys)
        self._observation = forget(self._observation, due)  # what stays is observed, and asked about, again
        return Swept(len(held), freed)

    async def close(self) -> None:
        """Nothing is held."""

    def _count(self, held: Mapping[str, Held]) -> None:
        for kind in ("attempt", "sandbox", "folder"):
            seen = sum(held[one].kind == kind for one in self._observation.seen)
            self._metrics.orphans.labels(kind).set(seen)

    async def _ask(self, host: str, keys: list[str]) -> int:
        """How much the host freed. A host that does not answer is asked again later."""
        freed = 0
        for begin in range(0, len(keys), _AT_ONCE):
            request = SweepRequest(keys=tuple(keys[begin : begin + _AT_ONCE]))
            try:
                msg = await self._bus.request(subjects.sweep(host), encode(request), _ANSWER_SECONDS)
                reply = _decode(msg.data)
            except (Unavailable, msgspec.DecodeError) as error:
                log.warning("host %s was asked to sweep %s: %s", host, ", ".join(request.keys), error)
                continue
            for one in reply.freed:
                log.warning("host %s freed %s %s: %s", host, one.kind, one.key, one.reason)
                self._metrics.reclaimed.labels(one.kind, one.reason).inc()
            freed += len(reply.freed)
        return freed


def by_host(held: Iterable[Held]) -> dict[str, list[str]]:
    """The keys to ask each host about, each of them once."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for one in held:
        found[one.host][one.key] = None
    return {host: list(keys) for host, keys in found.items()}
