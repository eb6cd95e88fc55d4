"""The shorter ways into nats-py, by names of its own that are not public: its version is pinned, a test tries them.

A message costs nats-py about as much again for a queue, a wake-up of a task and a coroutine as for the protocol; most
of ours need none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from nats.aio.client import Client, _validate_subject
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

log = logging.getLogger(__name__)

_HEAD = "NATS/1.0\r\n"


class _Direct:
    """In the place of a subscription's queue: hands each message over at once."""

    def __init__(self, handle: Callable[[Msg], None]) -> None:
        self._handle = handle

    def put_nowait(self, msg: Msg) -> None:
        try:
            self._handle(msg)
        except Exception:  # it would end the connection's reading
            log.exception("handling a message of %s failed", msg.subject)

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return True

    async def join(self) -> None:
        """Nothing ever waits here."""


async def hear(nc: Client, subject: str, handle: Callable[[Msg], None]) -> Subscription:
    """Subscribe; `handle` is called where the message is read, so it must be quick, and cannot wait."""
    sub = await nc.subscribe(subject, pending_bytes_limit=0)
    queue: Any = _Direct(handle)
    sub._pending_queue = queue  # before the server can have heard of the subscription: nothing is in the old one
    return sub


async def post(nc: Client, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
    """As `nc.publish`. Raises what that does."""
    if nc._status != Client.CONNECTED or len(data) > nc._max_payload:
        await nc.publish(subject, data, reply, dict(headers) if headers else None)
        return
    _validate_subject(subject)
    if headers:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
            raise ValueError(f"a header with a line break in it: {headers!r}")
        head = f"{_HEAD}{lines}\r\n".encode()
        size = len(head)
        command = f"HPUB {subject} {reply} {size} {size + len(data)}\r\n".encode() + head + data + b"\r\n"
    else:
        command = f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n"
    nc.stats["out_msgs"] += 1
    nc.stats["out_bytes"] += len(data)
    await nc._send_command(command)
    if nc._flush_queue is not None and nc._flush_queue.empty():
        await nc._flush_pending()
