"""What the collectors that read a stream have in common: a standing pull, a batch, an answer for each message."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from typing import Final

from nats.js.api import ConsumerConfig
from prometheus_client import Gauge, Histogram

from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.pull import Delivery, Pull
from pitstop_janitor.model import Swept

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 0.5
_BATCH: Final = 256


class Unusable(Exception):
    """This message can never be used. The text says why; the server's advisory carries it to the dead letters."""


class PulledCollector(ABC):
    """Reads one durable consumer, shared by all janitors. A subclass says what to do with a message."""

    name: str

    def __init__(
        self, bus: Bus, stream: str, consumer: ConsumerConfig, *, handled: Histogram, waiting: Gauge
    ) -> None:  # fmt: skip
        self.bus = bus
        self._pull = Pull(bus, stream, consumer, batch=_BATCH)
        self._handled = handled
        self._waiting = waiting
        self._batch: list[Delivery] = []

    @abstractmethod
    async def handle(self, delivery: Delivery) -> bool:
        """Do what the message asks. True: something was freed by it. Raises Unusable, or PitstopError to have the
        message again later."""

    async def due(self) -> bool:
        """When messages have come. False after a while of none, if the server does answer."""
        self._batch += await self._pull.next(_WAIT_SECONDS, most=_BATCH)
        if not self._batch and not self._pull.answering:
            raise Unavailable(f"the consumer of {self.name} does not answer")
        self._waiting.set(self._batch[-1].pending + len(self._batch) if self._batch else 0)
        return bool(self._batch)

    async def sweep(self) -> Swept:
        """All of the batch at once: a fact is one round trip, and many deadlines may be due together."""
        batch = list(self._batch)
        freed = await asyncio.gather(*(self._answer(delivery) for delivery in batch))
        self._batch.clear()
        self._waiting.set(batch[-1].pending if batch else 0)
        return Swept(len(batch), sum(freed))

    async def close(self) -> None:
        """Hand back what no pass has dealt with."""
        await self._pull.hand_back()
        batch, self._batch = self._batch, []
        for delivery in batch:
            await delivery.nak()

    async def _answer(self, delivery: Delivery) -> bool:
        started = time.monotonic()
        outcome, freed = "ack", False
        try:
            freed = await self.handle(delivery)
            await delivery.ack()
        except Unusable as error:
            outcome = "term"
            log.warning("%s: message %d is unusable: %s", self.name, delivery.seq, error)
            await delivery.term(str(error))
        except PitstopError as error:
            outcome = "nak"
            log.warning("%s: message %d comes again: %s", self.name, delivery.seq, error)
            await delivery.nak(_AGAIN_SECONDS)
        self._handled.labels(self.name, outcome).observe(time.monotonic() - started)
        return freed
