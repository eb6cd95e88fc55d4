"""A standing pull on a JetStream consumer: one outstanding request, idle heartbeats, made again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.wire import Letter, hear

log = logging.getLogger(__name__)

_EXPIRES: Final = 5.0
_HEARTBEAT: Final = 1.0
_SILENCE: Final = 2.2
"""No message and no heartbeat for this long: the request is lost, ask again."""


class Delivery:
    """A stored message, delivered. `seq` is its place in the stream, `stored` the server's time stamp (seconds)."""

    __slots__ = ("_bus", "_msg", "count", "data", "deliveries", "pending", "reply", "seq", "stored", "subject")

    def __init__(self, bus: Bus, msg: Letter) -> None:
        self._bus, self._msg = bus, msg
        self.subject = msg.subject
        self.data = msg.data
        self.reply = msg.reply
        tokens = msg.reply.split(".")
        if len(tokens) > 9:  # `$JS.ACK.<domain>.<account>.…`
            tokens = tokens[2:]
        self.deliveries = int(tokens[4])
        self.seq = int(tokens[5])
        self.count = int(tokens[6])
        """Which of its consumer's deliveries this is, from 1."""
        self.stored = int(tokens[7]) / 1e9
        self.pending = int(tokens[8])

    @property
    def headers(self) -> dict[str, str]:
        """Read anew each time."""
        return self._msg.headers or {}

    async def ack(self) -> None:
        """Done with it."""
        await self._bus.publish(self.reply, b"+ACK")

    async def ack_surely(self) -> None:
        """Done with it, and the server says it knows. Raises Unavailable."""
        await self._bus.request(self.reply, b"+ACK")

    async def nak(self, delay: float = 0.0) -> None:
        """Deliver it again after `delay` seconds."""
        await self._bus.publish(self.reply, b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode())

    async def term(self, reason: str) -> None:
        """Never deliver it again; the server's advisory keeps the reason."""
        await self._bus.publish(self.reply, b"+TERM " + reason.encode())

    async def working(self) -> None:
        """Still at it: start the ack wait anew."""
        await self._bus.publish(self.reply, b"+WPI")


class Pull:
    """Messages of a consumer, in batches. An ephemeral consumer (no durable name) goes on where it was when it has to
    be made again; so `next()` yields each message of an ordered reader once, in order."""

    def __init__(self, bus: Bus, stream: str, config: ConsumerConfig, *, batch: int = 512) -> None:
        self._bus, self._stream, self._config, self._batch = bus, stream, config, batch
        self._messages: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._outstanding = 0
        self._heard = 0.0
        self._dead = True
        self._last = self._count = self._unheard = 0
        self._reconnects = 0
        self._name = ""
        self._sub: Subscription | None = None
        self._room: Callable[[], int] | None = None
        self.drained = False
        """True after the server said that nothing is waiting now."""

    async def next(
        self, timeout: float = 0.5, most: int = 1000, room: Callable[[], int] | None = None
    ) -> list[Delivery]:
        """What has arrived, at most `most`; an empty list after `timeout` seconds without any. With `room` no more
        messages are asked for than it says there is room for, and none before the ones taken count in it."""
        self._room = room
        if not self._messages:
            self._arrived.clear()
            await self._ensure()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):  # `wait_for` would lose a cancellation now and then
                    await self._arrived.wait()
        count = min(len(self._messages), most)
        taken = [self._messages.popleft() for _ in range(count)]
        if taken:
            self._last = taken[-1].seq
            if not self._messages and self._outstanding <= 0 and room is None:
                await self._ask()
        return taken

    def wake(self) -> None:
        """Have `next` return at once."""
        self._arrived.set()

    async def hand_back(self) -> None:
        """Stop, as `close`; what has arrived and was not handed out goes back at once, for others to take."""
        if self._sub is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    await self._sub.drain()  # type: ignore[no-untyped-call]  # all on its way arrives
            self._sub = None
        self._dead = True
        while self._messages:
            await self._messages.popleft().nak()

    @property
    def answering(self) -> bool:
        """The server is heard: messages, its heartbeats, or its word that nothing waits."""
        return self._bus.nc.is_connected and not self._dead and time.monotonic() - self._heard <= _SILENCE

    async def close(self) -> None:
        """Stop. An ephemeral consumer is deleted; messages not yet handed out of a durable one come again."""
        if self._sub is not None:
            with contextlib.suppress(Exception):
                await self._sub.unsubscribe()
            self._sub = None
        if self._name and not self._config.durable_name:
            with contextlib.suppress(Exception):
                await self._bus.api(f"CONSUMER.DELETE.{self._stream}.{self._name}", {})

    async def _ensure(self) -> None:
        cut = self._reconnects != self._bus.nc.stats["reconnects"]
        silent = self._outstanding > 0 and time.monotonic() - self._heard > _SILENCE
        self._unheard += silent
        if not self._config.durable_name and (cut or self._unheard > 1):
            # What was on its way counts as delivered, and never comes again. And the server of a cluster that keeps
            # this consumer may be out of reach for long, while all others are there.
            self._dead = True
        if self._dead:
            try:
                await self._make()
            except (Unavailable, APIError, TimeoutError) as error:
                log.debug("consumer on %s: %s", self._stream, error)
                await asyncio.sleep(0.1)
                return
        if cut or silent or self._outstanding <= 0:
            with contextlib.suppress(Exception):
                await self._ask()

    async def _make(self) -> None:
        await self.close()
        self._messages.clear()
        config = self._config
        if not config.durable_name and self._last:
            config = config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._last + 1)
        info = await self._bus.js.add_consumer(self._stream, config, timeout=2)
        self._name = info.name or ""
        inbox = self._bus.nc.new_inbox()
        self._sub = await hear(self._bus.nc, inbox, self._on_message)
        self._inbox = inbox
        self._dead, self._outstanding, self._count, self._unheard = False, 0, 0, 0

    async def _ask(self) -> None:
        batch = self._batch if self._room is None else min(self._batch, self._room())
        if self._dead or batch <= 0:
            return
        self._outstanding, self._heard, self.drained = batch, time.monotonic(), False
        self._reconnects = self._bus.nc.stats["reconnects"]
        body = {"batch": batch, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        await self._bus.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}", json.dumps(body).encode(), self._inbox
        )

    def _on_message(self, msg: Letter) -> None:
        self._heard, self._unheard = time.monotonic(), 0
        if msg.reply.startswith("$JS.ACK"):
            self._accept(msg)
        else:
            found = msg.headers or {}
            self._on_status(found.get("Status", ""), found.get("Description", ""))

    def _accept(self, msg: Letter) -> None:
        delivery = Delivery(self._bus, msg)
        if not self._config.durable_name:
            if self._dead or delivery.count != self._count + 1:
                self._dead = True
                self._arrived.set()
                return
            self._count = delivery.count
        self._messages.append(delivery)
        self._outstanding -= 1
        self._arrived.set()

    def _on_status(self, status: str, description: str) -> None:
        if status == "100":
            return
        self._outstanding = 0
        if status in {"503", "404"} and "Messages" not in description:
            self._dead = True
        if status == "409" and ("Deleted" in description or "Shutdown" in description):
            self._dead = True
        self.drained = True
        self._arrived.set()


def reader(filter_subject: str | None, start: int = 0, *, last_per_subject: bool = False) -> ConsumerConfig:
    """An ephemeral consumer that acks nothing: from sequence `start` on, or the last message of each subject."""
    policy = DeliverPolicy.ALL
    if last_per_subject:
        policy = DeliverPolicy.LAST_PER_SUBJECT
    elif start > 1:
        policy = DeliverPolicy.BY_START_SEQUENCE
    return ConsumerConfig(
        filter_subject=filter_subject,
        ack_policy=AckPolicy.NONE,
        deliver_policy=policy,
        opt_start_seq=start if policy is DeliverPolicy.BY_START_SEQUENCE else None,
        inactive_threshold=30.0,
        mem_storage=True,
        num_replicas=1,
    )


async def read_all(bus: Bus, stream: str, filter_subject: str | None, *, start: int = 0,
                   last_per_subject: bool = False) -> list[Delivery]:  # fmt: skip
    """Everything that is stored now under a subject, in order. Raises Unavailable after 10 s without progress."""
    pull = Pull(bus, stream, reader(filter_subject, start, last_per_subject=last_per_subject), batch=1000)
    found: list[Delivery] = []
    try:
        info = await _pending(bus, stream, pull)
        last_progress = time.monotonic()
        while info:
            batch = await pull.next(0.5)
            found += batch
            if batch:
                last_progress = time.monotonic()
                info = batch[-1].pending
            elif time.monotonic() - last_progress > 10:
                raise Unavailable(f"reading {stream} stalled")
    finally:
        await pull.close()
    return found


async def _pending(bus: Bus, stream: str, pull: Pull) -> int:
    for _ in range(50):
        with contextlib.suppress(Unavailable, APIError, TimeoutError):
            await pull._make()
            info = await bus.api(f"CONSUMER.INFO.{stream}.{pull._name}", {})
            return int(info["num_pending"])
        await asyncio.sleep(0.1)
    raise Unavailable(f"cannot read {stream}")


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch -> `2026-11-20T23:59:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
