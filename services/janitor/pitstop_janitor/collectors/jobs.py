"""The jobs that are not over, followed in the read models: shared by the collectors that ask about them."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.messages import JobView
from pitstop_common.pull import Delivery, read_all

log = logging.getLogger(__name__)

_decode_view = msgspec.json.Decoder(JobView).decode


class OpenJobs:
    """Reads only what changed since the last look; everything after a reconnect, because the bucket may be another."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._runs = bus, Bucket(bus, "runs")
        self._read, self._epoch = 0, -1
        self._turn = asyncio.Lock()
        self.views: dict[str, JobView] = {}
        """Every job that is neither queued nor finished, by its id."""

    async def follow(self) -> None:
        """Read what is new. Raises Unavailable."""
        async with self._turn:
            epoch = reconnects(self._bus)
            if epoch != self._epoch:
                self._read, self._epoch = 0, epoch
                self.views.clear()
            changed = await read_all(
                self._bus, "KV_runs", self._runs.subject("*.*.*"), start=self._read + 1 if self._read else 0,
                last_per_subject=not self._read,
            )  # fmt: skip
            for item in changed:
                self._take(item)

    def _take(self, item: Delivery) -> None:
        job = item.subject.rpartition(".")[2]
        self._read = max(self._read, item.seq)
        try:
            view = _decode_view(item.data) if item.data else None
        except msgspec.DecodeError as error:
            log.warning("the read model of job %s is not one: %s", job, error)
            view = None
        if view is None or view.status in {"queued", "finished"}:
            self.views.pop(job, None)
        else:
            self.views[job] = view


def reconnects(bus: Bus) -> int:
    """How often the connection was lost and made again."""
    return int(bus.nc.stats["reconnects"])
