"""What nobody asks for any more: old claims, read models, heartbeats, and consumers of hosts that are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from nats.js.errors import NotFoundError

from pitstop_common import streams
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.pull import Delivery, Pull, reader
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics
from pitstop_janitor.model import Swept

log = logging.getLogger(__name__)

_PREFIX: Final = "host-"
_MOST: Final = 5000
"""Keys of a bucket in one pass: the rest has time."""
_WAIT: Final = 0.5


class _Status(msgspec.Struct, frozen=True):
    """What the views of runs and of jobs have in common."""

    status: str


class StaleKeys:
    """Ages are counted by the server's time stamps. A bucket is read from its oldest entry on, and no further than to
    the first that is young enough: a pass that has nothing to do costs a look at each bucket."""

    name = "stale_keys"

    def __init__(self, bus: Bus, metrics: JanitorMetrics, config: JanitorConfig, jobs: OpenJobs) -> None:
        self._bus, self._metrics, self._config, self._jobs = bus, metrics, config, jobs
        self._hosts = Bucket(bus, "hosts")

    async def due(self) -> bool:
        """Every ten minutes."""
        await asyncio.sleep(self._config.stale_interval)
        return True

    async def sweep(self) -> Swept:
        """All kinds. One that fails stops no other; the pass fails in the end."""
        await self._jobs.follow()
        seen = freed = 0
        failure: Exception | None = None
        for look in (self._claims, self._views, self._heartbeats, self._consumers):
            try:
                swept = await look()
            except Exception as error:
                log.warning("%s: %s", look.__name__.strip("_"), error)
                failure = failure or error
            else:
                seen, freed = seen + swept.seen, freed + swept.freed
        if failure is not None:
            raise failure
        return Swept(seen, freed)

    async def close(self) -> None:
        """Nothing is held."""

    async def _claims(self) -> Swept:
        """Claims of jobs that are over, when no stream holds anything any more that could ask for them."""
        old = await self._older_than("claims", self._config.claims_kept)
        return await self._purge("claim", "claims", old, (one for one in old if not self._is_open(one)))

    async def _views(self) -> Swept:
        """Read models of runs that are over, when their specs are gone too."""
        old = await self._older_than("runs", self._config.views_kept)
        return await self._purge("view", "runs", old, (one for one in old if self._is_over(one)))

    async def _heartbeats(self) -> Swept:
        """Of hosts that nobody could call lost, and the marks of those that went."""
        old = await self._older_than("hosts", self._config.heartbeats_kept)
        return await self._purge("heartbeat", "hosts", old, old)

    async def _consumers(self) -> Swept:
        """Of hosts without a heartbeat, that nobody pulls from, when all that was said to them has aged out."""
        living = await self._hosts.scan()
        found = [one for one in await self._all_consumers() if str(one["name"]).startswith(_PREFIX)]
        freed = 0
        for one in found:
            name, idle = str(one["name"]), seconds(one["ts"]) - last_use(one)
            waits = one.get("num_waiting") or name.removeprefix(_PREFIX) in living
            if waits or idle < self._config.consumers_kept:
                continue
            try:
                await self._bus.api(f"CONSUMER.DELETE.{streams.WORK}.{name}", {})
            except NotFoundError:
                continue  # another janitor was first
            freed += 1
            log.info("consumer %s of %s is removed: unused for %.0f s", name, streams.WORK, idle)
            self._metrics.reclaimed.labels("consumer", "stale").inc()
        return Swept(len(found), freed)

    async def _all_consumers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            reply = await self._bus.api(f"CONSUMER.LIST.{streams.WORK}", {"offset": len(found)})
            page = reply.get("consumers") or []
            found += page
            if not page or len(found) >= int(reply["total"]):
                return found

    # -- buckets ---------------------------------------------------------------------------------------------------

    async def _older_than(self, bucket: str, age: float) -> list[Delivery]:
        """The entries that nobody has written for so long, the oldest first; those of deleted keys too."""
        stream = f"KV_{bucket}"
        info = await self._bus.api(f"STREAM.INFO.{stream}", {})
        state, before = info["state"], seconds(info["ts"]) - age
        if not state["messages"] or seconds(state["first_ts"]) > before:
            return []
        pull = Pull(self._bus, stream, reader(None), batch=256)
        found: list[Delivery] = []
        try:
            while len(found) < _MOST:
                batch = await pull.next(_WAIT)
                found += [one for one in batch if one.stored <= before]
                if not batch or batch[-1].stored > before or not batch[-1].pending:
                    break
        finally:
            await pull.close()
        return found

    async def _purge(self, kind: str, bucket: str, old: list[Delivery], stale: Iterable[Delivery]) -> Swept:
        """Only what was read: an entry that was written meanwhile stays."""
        freed = 0
        for one in stale:
            body = {"filter": one.subject, "seq": one.seq + 1}
            freed += int((await self._bus.api(f"STREAM.PURGE.KV_{bucket}", body))["purged"])
        if freed:
            log.info("%d of %d old entries of %s are removed", freed, len(old), bucket)
            self._metrics.reclaimed.labels(kind, "stale").inc(freed)
        return Swept(len(old), freed)

    def _is_open(self, claim: Delivery) -> bool:
        return claim.subject.split(".")[2] in self._jobs.views

    def _is_over(self, view: Delivery) -> bool:
        """Run, job or report: `$KV.runs.<org>.<run>[.<job>[.report]]`."""
        tokens = view.subject.split(".")
        if len(tokens) > 5:
            return tokens[4] not in self._jobs.views
        try:
            return not view.data or msgspec.json.decode(view.data, type=_Status).status == "finished"
        except msgspec.MsgspecError:
            return True


def last_use(consumer: dict[str, Any]) -> float:
    """When a consumer was made, or last delivered or heard of something, seconds since the epoch."""
    used = [part.get("last_active") for part in (consumer.get("delivered") or {}, consumer.get("ack_floor") or {})]
    return max(seconds(stamp) for stamp in (consumer["created"], *used) if stamp)


def seconds(stamp: str) -> float:
    """A time stamp of the server, `2026-11-21T13:00:00.123456789Z`, as seconds since the epoch."""
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()
