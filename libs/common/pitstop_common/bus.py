"""The one adapter over nats-py: acknowledged publishes, standing pulls, requests.

A publish is one future per message on a shared inbox (facts: `js.publish` costs several times as much). Every wait has
a short time limit, because a request in flight when the server dies ends only by its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.errors import APIError

from pitstop_common.acks import PASSING, Ack, Refused, read_ack
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.wire import JetStream, Letter, hear, post, quicken

log = logging.getLogger(__name__)

REQUEST_TIMEOUT: Final = 1.0
_PENDING_BYTES: Final = 64 * 1024 * 1024


Take = Callable[["asyncio.Future[Any]", Letter], None]
"""Ends a future with what an answer says."""


def _take_ack(future: asyncio.Future[Any], msg: Letter) -> None:
    found = read_ack(msg)
    if isinstance(found, Ack):
        future.set_result(found)
    else:
        future.set_exception(found)


def _take_reply(future: asyncio.Future[Any], msg: Letter) -> None:
    if not msg.data and (msg.headers or {}).get("Status") == "503":
        future.set_exception(nats.errors.NoRespondersError())
    else:
        future.set_result(msg)


def _end_late(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class Bus:
    """A connection to NATS. Made by `connect`."""

    def __init__(self, nc: Client, on_error: Callable[[Exception], None]) -> None:
        self.nc = nc
        self.js = JetStream(nc, lambda subject, data, timeout: self._ask(subject, data, None, timeout, _take_reply))
        self.on_error = on_error
        self._waiting: dict[int, tuple[asyncio.Future[Any], Take]] = {}
        self._told: dict[int, Callable[[Ack | PitstopError], None]] = {}
        self._count = 0
        self._prefix = ""

    @classmethod
    async def connect(
        cls,
        url: str,
        name: str,
        *,
        on_state: Callable[[bool], None] = lambda _connected: None,
        attempts: int = -1,
    ) -> Bus:
        """Connect and stay connected. `on_state` hears of loss and return. Raises Unavailable when the first connect
        fails (`attempts` >= 0 bounds the later ones too, for short-lived commands)."""

        async def on_error(error: Exception) -> None:
            log.debug("nats: %s", error)

        async def lost() -> None:
            on_state(False)

        async def back() -> None:
            on_state(True)

        try:
            nc = await nats.connect(
                url.split(","), name=name, max_reconnect_attempts=attempts, reconnect_time_wait=0.1,
                allow_reconnect=True, connect_timeout=2, error_cb=on_error, disconnected_cb=lost, reconnected_cb=back,
                inbox_prefix=inbox_prefix(url), pending_size=_PENDING_BYTES, ping_interval=5,
                max_outstanding_pings=2,
            )  # fmt: skip
        except Exception as error:
            raise Unavailable(f"cannot reach NATS at {safe_url(url)}: {error}") from error
        bus = cls(nc, lambda error: log.warning("nats: %s", error))
        quicken(nc)
        bus._prefix = nc.new_inbox() + "."
        await hear(nc, bus._prefix + "*", bus._answered)
        on_state(True)
        return bus

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish, without a word back."""
        await post(self.nc, subject, data, reply, headers)

    async def tell(
        self, subject: str, data: bytes, headers: Mapping[str, str], heard: Callable[[Ack | PitstopError], None]
    ) -> int:
        """Publish; `heard` is told what the server says, where it is read: it must be quick, and cannot wait. That may
        never come: `forget` the number that this returns."""
        self._count += 1
        number = self._count
        self._told[number] = heard
        try:
            await post(self.nc, subject, data, f"{self._prefix}{number}", headers)
        except BaseException:
            del self._told[number]
            raise
        return number

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._told.pop(number, None)

    async def send(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> asyncio.Future[Ack]:
        """Publish; the future ends with the server's ack. It may never end: bound it with a time limit."""
        number, future = await self._post(subject, data, headers, _take_ack)
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        return future

    async def store(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Ack:
        """Publish once and wait. Raises Unavailable (it may or may not be stored), WrongLastSequence or Refused."""
        try:
            ack: Ack = await self._ask(subject, data, headers, timeout, _take_ack)
            return ack
        except nats.errors.MaxPayloadError as error:
            raise Refused(0, f"{len(data)} bytes are more than the server takes") from error
        except (TimeoutError, nats.errors.Error) as error:
            raise Unavailable(f"no answer from JetStream on {subject}") from error

    async def store_surely(self, subject: str, data: bytes, headers: Mapping[str, str]) -> Ack:
        """Publish until it is stored. `headers` must hold a `Nats-Msg-Id` or an expected sequence, so that trying
        again is harmless. Raises only WrongLastSequence and Refused."""
        delay = 0.05
        while True:
            try:
                return await self.store(subject, data, headers)
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    async def _ask(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None, timeout: float, take: Take
    ) -> Any:
        number, future = await self._post(subject, data, headers, take)
        # Cheaper than a time limit around the wait, and loses no cancellation, as `wait_for` does now and then.
        late = asyncio.get_running_loop().call_later(timeout, _end_late, future)
        try:
            return await future
        finally:
            late.cancel()
            self._waiting.pop(number, None)

    async def _post(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None, take: Take
    ) -> tuple[int, asyncio.Future[Any]]:
        self._count += 1
        number = self._count
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future, take
        try:
            await self.publish(subject, data, f"{self._prefix}{number}", headers)
        except BaseException:
            del self._waiting[number]
            raise
        return number, future

    def _answered(self, msg: Letter) -> None:
        number = int(msg.subject[len(self._prefix) :])
        if heard := self._told.pop(number, None):
            heard(read_ack(msg))
            return
        future, take = self._waiting.get(number, (None, None))
        if future is not None and take is not None and not future.done():
            take(future, msg)

    # -- requests and subscriptions --------------------------------------------------------------------------------

    async def request(
        self, subject: str, data: bytes = b"", timeout: float = REQUEST_TIMEOUT,
        headers: Mapping[str, str] | None = None,
    ) -> Letter:  # fmt: skip
        """Request and reply. Raises Unavailable when nobody answers in time."""
        try:
            msg: Letter = await self._ask(subject, data, headers, timeout, _take_reply)
            return msg
        except (TimeoutError, nats.errors.Error) as error:
            raise Unavailable(f"nobody answers on {subject}") from error

    async def subscribe(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]], queue: str = ""
    ) -> Subscription:
        """A core subscription."""
        return await self.nc.subscribe(subject, queue=queue, cb=callback)

    async def api(self, subject: str, body: Mapping[str, object], timeout: float = REQUEST_TIMEOUT) -> dict[str, Any]:
        """A call of the JetStream API by name, e.g. `STREAM.MSG.GET.DEC`. Raises Unavailable, or APIError."""
        msg = await self.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout)
        reply: dict[str, Any] = json.loads(msg.data)
        if "error" in reply:
            if reply["error"].get("code") == 503 or reply["error"].get("err_code") in PASSING:
                raise Unavailable(str(reply["error"].get("description")))
            raise APIError.from_error(reply["error"])
        return reply

    async def heard(self) -> None:
        """Returns when the server has heard all that was sent before, subscriptions too; however long it is away."""
        while True:
            with contextlib.suppress(Unavailable, APIError):
                await self.api("INFO", {})
                return
            await asyncio.sleep(0.1)

    async def renew(self) -> None:
        """Connect anew. Who waits for an answer hears at once that none will come (Unavailable)."""
        await self.nc.force_reconnect()
        for future, _ in tuple(self._waiting.values()):
            if not future.done():
                future.set_exception(nats.errors.StaleConnectionError())

    async def drain(self, timeout: float = 5.0) -> None:
        """Flush what was published and close; at once when the server is gone."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(timeout):
                if self.nc.is_connected:
                    await self.nc.flush()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(timeout):
                await self.nc.close()


@contextlib.asynccontextmanager
async def connected(url: str, name: str, *, attempts: int = -1) -> AsyncIterator[Bus]:
    """A Bus for the length of a block."""
    bus = await Bus.connect(url, name, attempts=attempts)
    try:
        yield bus
    finally:
        await bus.drain()


def inbox_prefix(url: str) -> str:
    """Each service has an inbox of its own, so that none can read another's replies: `_INBOX_<user>`; each login of a
    person, too."""
    user = urlsplit(url.split(",")[0]).username or ""
    if user.startswith(("login-", "token-")):
        return f"_INBOX_pass.{user}"
    named = {"scheduler", "sandbox", "relay", "janitor", "owner", "publisher"}
    return f"_INBOX_{user}" if user in named else "_INBOX"


def safe_url(url: str) -> str:
    """A URL without its credentials, for messages."""
    parts = urlsplit(url.split(",")[0])
    return f"{parts.scheme}://{parts.hostname}:{parts.port}"
