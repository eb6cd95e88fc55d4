"""The shorter ways into nats-py, by names of its own that are not public: its version is pinned, a test tries them.

A message costs nats-py about as much again for a queue, a wake-up of a task and a coroutine as for the protocol; most
of ours need none of them, and few are asked for their headers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from nats.aio.client import Client, _validate_subject
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError, StaleConnectionError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.errors import APIError, ServiceUnavailableError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

log = logging.getLogger(__name__)

_HEAD: Final = "NATS/1.0"
_CRLF: Final = b"\r\n"


class Letter:
    """A message as it came."""

    __slots__ = ("_raw", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, raw: bytes | None) -> None:
        self.subject, self.reply, self.data, self._raw = subject, reply, data, raw

    @property
    def headers(self) -> dict[str, str] | None:
        """Read anew each time. The status of the server's own messages is `Status`, its words `Description`."""
        return _headers(self._raw) if self._raw else None


def _headers(raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    status, _, words = first[len(_HEAD) :].strip().partition(" ")
    if status.isdigit():
        found["Status"] = status
        if words:
            found["Description"] = words
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


class _Direct:
    """In the place of a subscription's queue: hands each message over at once."""

    def __init__(self, handle: Callable[[Letter], None]) -> None:
        self._handle = handle

    def put_nowait(self, letter: Letter) -> None:
        """A letter, or the stock parser's message, which has the same parts."""
        try:
            self._handle(letter)
        except Exception:  # it would end the connection's reading
            log.exception("handling a message of %s failed", letter.subject)

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return True

    async def join(self) -> None:
        """Nothing ever waits here."""


class _Quick(Parser):
    """Reads whole messages, and hands those over that `hear` asked for; whatever else comes is the stock parser's."""

    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE:
            await super().parse(data)
            return
        buffer = bytes(self.buf) + data if self.buf else bytes(data)
        mine = self.buf = bytearray()  # another one is there after a `reset`: the connection is a new one
        at, size = 0, len(buffer)
        while at < size:
            headed = buffer.startswith(b"HMSG ", at)
            if not headed and not buffer.startswith(b"MSG ", at):
                mine += buffer[at:]
                await super().parse()
                return
            line = buffer.find(_CRLF, at)
            words = buffer[at:line].split() if line >= 0 else []
            body = line + 2
            end = body + int(words[-1]) if words else size
            if end + 2 > size:
                break
            head = body + int(words[-2]) if headed else body
            reply = words[3] if len(words) == (6 if headed else 5) else b""
            at = end + 2
            message = words[1], reply, buffer[head:end], buffer[body:head] if headed else None
            if not _handed(self.nc, int(words[2]), *message):
                await self.nc._process_msg(int(words[2]), *message)
                if self.buf is not mine:
                    return
        mine += buffer[at:]


def _handed(nc: Client, sid: int, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> bool:
    sub = nc._subs.get(sid)
    queue: Any = sub._pending_queue if sub is not None else None
    if sub is None or type(queue) is not _Direct:
        return False
    nc.stats["in_msgs"] += 1
    nc.stats["in_bytes"] += len(data)
    sub._received += 1
    queue.put_nowait(Letter(subject.decode(), reply.decode(), data, raw))
    return True


def quicken(nc: Client) -> None:
    """Read this connection the short way from now on."""
    nc._ps.__class__ = _Quick


async def hear(nc: Client, subject: str, handle: Callable[[Letter], None]) -> Subscription:
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
        head = f"{_HEAD}\r\n{lines}\r\n".encode()
        size = len(head)
        command = b"".join((f"HPUB {subject} {reply} {size} {size + len(data)}\r\n".encode(), head, data, _CRLF))
    else:
        command = b"".join((f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, _CRLF))
    nc.stats["out_msgs"] += 1
    nc.stats["out_bytes"] += len(data)
    await nc._send_command(command)
    if nc._flush_queue is not None and nc._flush_queue.empty():
        await nc._flush_pending()


class JetStream(JetStreamContext):
    """The stock one, which asks by `ask(subject, data, timeout)`. Its own way waits by `asyncio.wait_for`, which on
    Python 3.11 loses a cancellation that comes in the same moment as the answer: the cancelled task goes on."""

    def __init__(self, nc: Client, ask: Callable[[str, bytes, float], Awaitable[Letter]]) -> None:
        super().__init__(nc, timeout=5)
        self._ask = ask

    async def _api_request(self, req_subject: str, req: bytes = b"", timeout: float = 5) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = json.loads((await self._ask(req_subject, req, timeout)).data)
        except NoRespondersError:
            raise ServiceUnavailableError from None
        except (TimeoutError, StaleConnectionError):
            raise NatsTimeoutError from None
        if "error" in reply:
            raise APIError.from_error(reply["error"])
        return reply
