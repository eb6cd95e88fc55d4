"""The sandbox host's end of the links: dials relay workers when asked, and serves the logins they bring.

`SshHost` is all that the rest of the service needs to know.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from pitstop_common.link import BROKEN, Frame, Hello, Kind, LinkError, Open, Reader, ending, pack
from pitstop_common.messages import AccessReply, DialReply, DialRequest
from pitstop_sandbox.channels.seen import Seen
from pitstop_sandbox.channels.visitor import Visitor
from pitstop_sandbox.ports import SessionHost

log = logging.getLogger(__name__)

RELAY_NAME: Final = "pitstop-relay"
"""The DNS name in the certificate of every relay."""
DIAL_TIMEOUT: Final = 3.0
SILENT_AFTER: Final = 30.0
"""A relay pings every few seconds; one that says nothing for so long is gone, seconds."""
MAX_VISITORS: Final = 1024
"""Logins on one link."""
CLOSE_WITHIN: Final = 20.0
"""For all visitors to leave at the end, seconds."""

READ_WITHIN: Final = 0.2
"""Between a last notice and the end: a client drops what it has not shown when it is disconnected, seconds."""
FLUSH_WITHIN: Final = 2.0
"""For the last frames of a link to go out, seconds."""

_DATA: Final = Kind.DATA
_ENDING: Final = (
    "[pitstop] this relay will end in {} s at the latest. Connect again: your shell goes on, through another relay."
)
_SEND_HIGH: Final = 4 * 1024 * 1024
_SEND_LOW: Final = 1024 * 1024


class AccessPort(Protocol):
    """The question `svc.access`."""

    async def access(self, job: str, *, token: str = "") -> AccessReply:
        """Who may enter a job, and what is known of a token (by its id). Raises PitstopError when nobody answers."""


class SshHost:
    """Every ssh connection into jobs of this host.

    `find` gives the running job of an id. `tls` is a client context with this host's certificate (DNS SAN
    `pitstop-host`) and the private CA. `seen` remembers logins; give it a file, so that it does so over restarts.
    """

    def __init__(
        self,
        access: AccessPort,
        find: Callable[[str], SessionHost | None],
        *,
        host: str,
        incarnation: str,
        tls: ssl.SSLContext,
        seen: Seen | None = None,
    ) -> None:
        self.host = host
        self.incarnation = incarnation
        self.seen = seen if seen is not None else Seen()
        self.find = find
        self._access = access
        self._tls = tls
        self._links: set[_Link] = set()
        self._closing = False

    async def access(self, job: str, *, token: str = "") -> AccessReply:
        """As the port says."""
        return await self._access.access(job, token=token)

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        return sum(len(link.visitors) for link in self._links)

    async def dial(self, request: DialRequest) -> DialReply:
        """Open a link to a relay worker. Returns when it stands, or with what went wrong."""
        if self._closing:
            return DialReply(ok=False, error="this host is being stopped")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                _transport, link = await loop.create_connection(
                    lambda: _Link(self), request.address, request.port, ssl=self._tls, server_hostname=RELAY_NAME
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            where = f"{request.address}:{request.port}"
            log.warning("cannot dial relay %s: %s", where, error)
            return DialReply(ok=False, error=f"cannot reach the relay at {where}: {error or 'timed out'}")
        link.greet(Hello(host=self.host, incarnation=self.incarnation, worker=request.worker, nonce=request.nonce))
        return DialReply(ok=True)

    def notice(self, job: str, text: str) -> None:
        """Show a line in every terminal of a job."""
        for visitor in self._visitors(job):
            visitor.notice(text)

    def warn(self, job: str, text: str) -> None:
        """Show a warning to everybody in a job."""
        for visitor in self._visitors(job):
            visitor.warn(text)

    async def close_job(self, job: str, notice: str, reason: str = "stopped") -> None:
        """End all connections into a job: each terminal shows `notice`; a client without one says it at its end.
        Returns when their processes have ended. `reason` is that of `ssh.closed`."""
        await self._dismiss(lambda visitor: visitor.job == job, reason, notice)

    async def aclose(self, reason: str, text: str = "pitstop: the sandbox host is being stopped.") -> None:
        """End everything: no new link, every connection closed with `text`, every link ended."""
        self._closing = True
        if await self._dismiss(lambda _visitor: True, reason, text):
            await asyncio.sleep(READ_WITHIN)
        links = tuple(self._links)
        for link in links:
            link.close()
        if links:
            await asyncio.wait([asyncio.ensure_future(link.closed.wait()) for link in links])

    async def _dismiss(self, chosen: Callable[[Visitor], bool], reason: str, text: str) -> bool:
        """Close those chosen; whether one of them still reads it in a terminal."""
        visits = [
            (visitor, link.tasks[number])
            for link in self._links
            for number, visitor in link.visitors.items()
            if chosen(visitor)
        ]
        reading = False
        for visitor, _task in visits:
            shown = visitor.notice(text)
            visitor.close(reason, "" if shown else text, READ_WITHIN if shown else 0)
            reading = reading or shown
        if visits:
            await asyncio.wait([task for _visitor, task in visits], timeout=CLOSE_WITHIN)
        return reading

    def joined(self, link: _Link) -> None:
        """A link stands."""
        self._links.add(link)

    def parted(self, link: _Link) -> None:
        """A link is gone."""
        self._links.discard(link)

    def _visitors(self, job: str) -> list[Visitor]:
        return [visitor for link in self._links for visitor in link.visitors.values() if visitor.job == job]


class _Link(asyncio.Protocol):
    """One TLS connection to one relay worker."""

    def __init__(self, house: SshHost) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._transport: asyncio.Transport
        self._last = 0
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._full = False
        self.visitors: dict[int, Visitor] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.closed = asyncio.Event()

    def greet(self, hello: Hello) -> None:
        """The first frame."""
        self._transport.write(pack(Kind.HELLO, 0, msgspec.msgpack.encode(hello)))

    def close(self) -> None:
        """End the link after what was sent before."""
        self._transport.close()
        asyncio.get_running_loop().call_later(FLUSH_WITHIN, self._transport.abort)

    def cut(self, why: str) -> None:
        """End the link at once."""
        log.info("link cut: %s", why)
        self._transport.abort()

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_SEND_HIGH, _SEND_LOW)
        self._house.joined(self)
        self._heard = asyncio.get_running_loop().time()
        self._look()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            for frame in self._reader.feed(data):
                if frame.kind is _DATA and (visitor := self.visitors.get(frame.connection)) is not None:
                    visitor.data(frame.payload)
                else:
                    self._frame(frame)
        except BROKEN as error:
            log.warning("the relay broke the link's rules: %s", error)
            self.cut(str(error))

    def pause_writing(self) -> None:
        self._full = True
        for visitor in self.visitors.values():
            visitor.hold("link")

    def resume_writing(self) -> None:
        self._full = False
        for visitor in self.visitors.values():
            visitor.release("link")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for visitor in tuple(self.visitors.values()):
            visitor.left()
        self._house.parted(self)
        self.closed.set()

    # -- frames ----------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        if frame.kind is Kind.PING:
            self._transport.write(pack(Kind.PONG, 0, frame.payload[:64]))
        elif frame.kind is Kind.OPEN:
            self._open(frame.connection, frame.payload)
        elif frame.kind is Kind.ENDING:
            text = _ENDING.format(ending(frame.payload))
            for visitor in self.visitors.values():
                visitor.notice(text)
        else:
            self._to_visitor(frame)

    def _open(self, number: int, payload: bytes) -> None:
        if number <= self._last:
            raise LinkError(f"connection {number} was opened before")
        if len(self.visitors) >= MAX_VISITORS:
            raise LinkError("too many connections")
        login = msgspec.msgpack.decode(payload, type=Open)
        self._last = number

        def send(kind: Kind, *bodies: bytes) -> None:
            if not self._transport.is_closing():
                # What belongs together goes out together: the relay is woken once.
                self._transport.write(b"".join([pack(kind, number, body) for body in bodies]))

        visitor = self.visitors[number] = Visitor(self._house, login, send)
        if self._full:
            visitor.hold("link")
        task = self.tasks[number] = asyncio.ensure_future(visitor.visit())
        task.add_done_callback(lambda done: self._gone(number, done))

    def _gone(self, number: int, task: asyncio.Task[None]) -> None:
        self.visitors.pop(number, None)
        self.tasks.pop(number, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an ssh connection broke", exc_info=error)

    def _to_visitor(self, frame: Frame) -> None:
        if not 0 < frame.connection <= self._last:
            raise LinkError(f"connection {frame.connection} was not opened here")
        visitor = self.visitors.get(frame.connection)
        if visitor is None:  # it ended while this was on its way
            return
        if frame.kind is Kind.DATA:
            visitor.data(frame.payload)
        elif frame.kind is Kind.PAUSE:
            visitor.hold("client")
        elif frame.kind is Kind.RESUME:
            visitor.release("client")
        elif frame.kind is Kind.CLOSE:
            visitor.left()
        else:
            raise LinkError(f"a {frame.kind.name} frame from a relay")

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard > SILENT_AFTER:
            self.cut("the relay is silent")
        self._watch = loop.call_later(SILENT_AFTER / 4, self._look)
