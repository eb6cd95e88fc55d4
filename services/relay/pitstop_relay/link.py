"""The relay's end of the links: sandbox hosts dial in when asked, and carry the logins of their jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from pitstop_common.errors import PitstopError
from pitstop_common.link import BROKEN, Close, Frame, Hello, Kind, LinkError, Open, Reader, pack, pack_ending
from pitstop_common.messages import DialRequest
from pitstop_relay.identity import is_host
from pitstop_relay.ports import Dialer

log = logging.getLogger(__name__)

LINK_WITHIN: Final = 4.0
"""From the request to dial until the link stands, seconds."""
HELLO_WITHIN: Final = 5.0
"""From a TLS connection to its first frame, seconds."""
PING_EVERY: Final = 5.0
SILENT_AFTER: Final = 15.0
"""A host that answers no ping for so long is gone, seconds."""
MAX_UNKNOWN: Final = 64
"""Connections that have not said hello yet."""

_DATA: Final = Kind.DATA
_FIRST, _LAST = 80, 127
_SEND_HIGH: Final = 4 * 1024 * 1024
_SEND_LOW: Final = 1024 * 1024


class Unreachable(PitstopError):
    """No link to the host could be had."""

    code = "host_unreachable"


class Rider(Protocol):
    """A login on a link."""

    def down(self, message: bytes) -> None:
        """One message of type 80..127 from the sandbox."""

    def closed(self, reason: str, text: str) -> None:
        """The sandbox, or the link, ended it."""

    def hold(self) -> None:
        """The link is full: read nothing from the client."""

    def release(self) -> None:
        """It has room again."""


class Link(asyncio.Protocol):
    """One TLS connection of one host. Connection numbers mean something only inside it."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._transport: asyncio.Transport
        self._riders: dict[int, Rider] = {}
        self._last = 0
        self._full = False
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.hello: Hello | None = None

    @property
    def alive(self) -> bool:
        """Logins may ride on it."""
        return self.hello is not None and not self._transport.is_closing()

    def open(self, rider: Rider, login: Open) -> int:
        """A new login; its number."""
        self._last += 1
        self._riders[self._last] = rider
        self.send(Kind.OPEN, self._last, msgspec.msgpack.encode(login))
        if self._full:
            rider.hold()
        return self._last

    def send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        """A frame to the host; dropped when the link is gone."""
        if not self._transport.is_closing():
            self._transport.write(pack(kind, number, payload))

    def leave(self, number: int, reason: str) -> None:
        """The client of a login is gone."""
        if self._riders.pop(number, None) is not None:
            self.send(Kind.CLOSE, number, msgspec.msgpack.encode(Close(reason=reason)))

    def close(self) -> None:
        """End it after what was sent before."""
        self._transport.close()

    def cut(self, why: str) -> None:
        """End it at once."""
        log.warning("link of host %s cut: %s", self.hello.host if self.hello else "?", why)
        self._transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_SEND_HIGH, _SEND_LOW)
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self._timer = loop.call_later(HELLO_WITHIN, self.cut, "no hello")
        if not self._links.joined(self):
            self.cut("too many connections without a hello")
        elif not is_host(transport.get_extra_info("peercert")):
            self.cut("its certificate is not a sandbox host's")

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            for frame in self._reader.feed(data):
                self._frame(frame)
        except BROKEN as error:
            self.cut(str(error))

    def pause_writing(self) -> None:
        self._full = True
        for rider in self._riders.values():
            rider.hold()

    def resume_writing(self) -> None:
        self._full = False
        for rider in self._riders.values():
            rider.release()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._links.parted(self)
        riders, self._riders = self._riders, {}
        for rider in riders.values():
            rider.closed("link_lost", "pitstop: the sandbox host went away. Your job waits; connect again in a moment.")

    # -- frames ----------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        if frame.kind is _DATA and 0 < frame.connection <= self._last:  # none is open before the hello
            self._down(frame)
        elif self.hello is None:
            self._greeted(frame)
        elif frame.kind is Kind.PONG:
            return
        elif frame.kind is Kind.PING:
            self.send(Kind.PONG, 0, frame.payload[:64])
        elif not 0 < frame.connection <= self._last:
            raise LinkError(f"connection {frame.connection} was not opened here")
        elif frame.kind is Kind.CLOSE:
            close = msgspec.msgpack.decode(frame.payload, type=Close)
            rider = self._riders.pop(frame.connection, None)
            if rider is not None:
                rider.closed(close.reason, close.text)
        else:
            raise LinkError(f"a {frame.kind.name} frame from a host")

    def _down(self, frame: Frame) -> None:
        if not frame.payload or not _FIRST <= frame.payload[0] <= _LAST:
            raise LinkError("a message that is not of the connection layer")
        rider = self._riders.get(frame.connection)
        if rider is not None:
            rider.down(frame.payload)

    def _greeted(self, frame: Frame) -> None:
        if frame.kind is not Kind.HELLO:
            raise LinkError("the first frame is not a hello")
        hello = msgspec.msgpack.decode(frame.payload, type=Hello)
        if not self._links.expected(hello, self):
            raise LinkError("nobody asked this host to dial")
        self.hello = hello
        if self._timer is not None:
            self._timer.cancel()
        self._ping()

    def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard > SILENT_AFTER:
            self.cut("the host is silent")
            return
        self.send(Kind.PING, 0)
        self._timer = loop.call_later(PING_EVERY, self._ping)


class Links:
    """All links of this worker, and the port where hosts dial. `address` is what hosts are told."""

    def __init__(self, dialer: Dialer, worker: str, count: Callable[[int], None] = lambda _links: None) -> None:
        self._dialer = dialer
        self._worker = worker
        self._count = count
        self._unknown: set[Link] = set()
        self._known: dict[str, Link] = {}
        self._wanted: dict[str, tuple[str, asyncio.Future[Link]]] = {}
        self._dialling: dict[str, asyncio.Task[Link]] = {}
        self._server: asyncio.Server | None = None
        self.address: tuple[str, int] = ("", 0)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext) -> int:
        """Take links from now on. Returns the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Link(self), host, port, ssl=tls, ssl_handshake_timeout=HELLO_WITHIN
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        self.address = (host, bound)
        return bound

    async def to(self, host: str) -> Link:
        """A link to a host: the one there is, or a new one. Raises Unreachable."""
        link = self._known.get(host)
        if link is not None and link.alive:
            return link
        dialling = self._dialling.get(host)
        if dialling is None:
            dialling = self._dialling[host] = asyncio.ensure_future(self._dial(host))
            dialling.add_done_callback(lambda done: self._dialled(host, done))
        return await asyncio.shield(dialling)

    def say_ending(self, seconds: float) -> None:
        """Have people told that this relay ends when they have left, or in so many seconds."""
        for link in self._known.values():
            if link.alive:
                link.send(Kind.ENDING, 0, pack_ending(seconds))

    async def close(self) -> None:
        """No more links; those there are end."""
        if self._server is not None:
            self._server.close()
        for link in (*self._unknown, *self._known.values()):
            link.close()
        for dialling in tuple(self._dialling.values()):
            dialling.cancel()
        await asyncio.gather(*self._dialling.values(), return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                if self._server is not None:
                    await self._server.wait_closed()

    # -- what a link calls -----------------------------------------------------------------------------------------

    def joined(self, link: Link) -> bool:
        """A TLS connection; false when there are too many that have not said who they are."""
        self._unknown.add(link)
        return len(self._unknown) <= MAX_UNKNOWN

    def expected(self, hello: Hello, link: Link) -> bool:
        """Whether this host was asked, with this nonce, to dial this worker. The nonce counts once."""
        host, future = self._wanted.get(hello.nonce, ("", None))
        if future is None or future.done() or host != hello.host or hello.worker != self._worker:
            return False
        self._unknown.discard(link)
        self._known[host] = link
        self._count(len(self._known))
        future.set_result(link)
        return True

    def parted(self, link: Link) -> None:
        """A link is gone."""
        self._unknown.discard(link)
        if link.hello is not None and self._known.get(link.hello.host) is link:
            del self._known[link.hello.host]
            self._count(len(self._known))

    async def _dial(self, host: str) -> Link:
        nonce = secrets.token_hex(16)
        future: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._wanted[nonce] = (host, future)
        address, port = self.address
        request = DialRequest(address=address, port=port, worker=self._worker, nonce=nonce)
        try:
            async with asyncio.timeout(LINK_WITHIN):
                reply = await self._dialer.dial(host, request)
                if not reply.ok:
                    raise Unreachable(f"host {host}: {reply.error}")
                return await future
        except TimeoutError:
            raise Unreachable(f"host {host} did not dial within {LINK_WITHIN:.0f} s") from None
        finally:
            del self._wanted[nonce]

    def _dialled(self, host: str, task: asyncio.Task[Link]) -> None:
        self._dialling.pop(host, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("no link: %s", error)
