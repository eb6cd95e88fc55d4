"""Reads a stretch of a stream in one request, without a consumer (batched direct get, NATS 2.11)."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

from pitstop_common.bus import REQUEST_TIMEOUT, Bus
from pitstop_common.errors import Unavailable
from pitstop_common.wire import Letter, hear


class Stored(NamedTuple):
    """A message and where it lies."""

    seq: int
    subject: str
    data: bytes
    time: str = ""
    """When it was stored, by the server's clock: RFC 3339."""


class Batch(NamedTuple):
    """`pending`: so many more were stored behind them when they were read."""

    messages: list[Stored]
    pending: int


async def read_batch(
    bus: Bus, stream: str, subject: str, *, after: int, most: int, most_bytes: int, timeout: float = REQUEST_TIMEOUT
) -> Batch:
    """The next messages of a subject (wildcards too) behind sequence `after`. Raises Unavailable."""
    found: list[Stored] = []
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(msg: Letter) -> None:
        headers = msg.headers or {}
        if "Nats-Sequence" in headers:
            found.append(
                Stored(
                    int(headers["Nats-Sequence"]), headers["Nats-Subject"], msg.data, headers.get("Nats-Time-Stamp", "")
                )
            )
        elif not ended.done():
            status = headers.get("Status")
            if status in {"204", "404"}:
                ended.set_result(int(headers.get("Nats-Num-Pending") or 0))
            else:
                ended.set_exception(Unavailable(f"stream {stream} cannot be read: {status}"))

    inbox = bus.nc.new_inbox()
    subscription = await hear(bus.nc, inbox, take)
    try:
        body = {"seq": after + 1, "next_by_subj": subject, "batch": most, "max_bytes": most_bytes}
        await bus.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(body).encode(), inbox)
        async with asyncio.timeout(timeout):
            pending = await ended
    except TimeoutError:
        raise Unavailable(f"stream {stream} does not answer") from None
    finally:
        await subscription.unsubscribe()
    return Batch(found, pending)
