"""The relay's end of the link against hosts that keep to its rules, and some that do not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.link_tls import client_tls, make_tls
from tests.patience import PATIENCE

from pitstop_common.link import Close, Frame, Hello, Kind, Open, Reader, pack
from pitstop_common.messages import DialReply, DialRequest
from pitstop_relay import identity, link
from pitstop_relay.link import Links, Unreachable

LOGIN = Open(job="abcdefghijkl-1", session_id=bytes(32), message=b"m", signature=b"s", key=b"k")


class Rider:
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.end: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def down(self, message: bytes) -> None:
        self.got.append(message)

    def closed(self, reason: str, text: str) -> None:
        self.end.set_result((reason, text))

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass


class FakeHost:
    """Dials when asked, says what a test wants, and reads what comes."""

    def __init__(self, tls: Path) -> None:
        self.tls = tls
        self.asked: list[DialRequest] = []
        self.answers = True
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self._frames = Reader()
        self._ready: list[Frame] = []
        self.hello: dict[str, str] = {}
        self.name = "pitstop-host"

    async def dial(self, host: str, request: DialRequest) -> DialReply:
        self.asked.append(request)
        if not self.answers:
            return DialReply(ok=False, error="no route")
        await self.connect(request)
        fields = {"host": host, "incarnation": "1", "worker": request.worker, "nonce": request.nonce, **self.hello}
        self.send(Kind.HELLO, 0, msgspec.msgpack.encode(Hello(**fields)))
        return DialReply(ok=True)

    async def connect(self, request: DialRequest) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            request.address, request.port, ssl=client_tls(self.tls, self.name), server_hostname="pitstop-relay"
        )

    def send(self, kind: Kind, connection: int, payload: bytes = b"") -> None:
        self.writer.write(pack(kind, connection, payload))

    async def next(self, *, pings: bool = False) -> Frame:
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._ready:
                    frame = self._ready.pop(0)
                    if pings or frame.kind is not Kind.PING:
                        return frame
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionResetError
                self._ready += self._frames.feed(data)

    async def cut(self) -> None:
        """Until the relay has ended the link."""
        with pytest.raises((ConnectionResetError, BrokenPipeError, ssl.SSLError)):
            while True:
                await self.next(pings=True)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[FakeHost]:
    fake = FakeHost(make_tls(tmp_path / "tls"))
    yield fake
    if hasattr(fake, "writer"):
        fake.writer.close()


@pytest.fixture
async def links(host: FakeHost) -> AsyncIterator[Links]:
    made = Links(host, "worker-1")
    tls = identity.link_tls(host.tls / "ca.pem", host.tls / "pitstop-relay.pem", host.tls / "pitstop-relay.key")
    await made.listen("127.0.0.1", 0, tls)
    yield made
    await made.close()


async def test_a_link_is_dialled_once_and_kept(links: Links, host: FakeHost) -> None:
    first, second = await asyncio.gather(links.to("a"), links.to("a"))
    assert first is second is await links.to("a")
    assert [request.worker for request in host.asked] == ["worker-1"]


async def test_a_login_its_messages_and_its_end(links: Links, host: FakeHost) -> None:
    rider = Rider()
    chosen = await links.to("a")
    number = chosen.open(rider, LOGIN)
    frame = await host.next()
    assert (frame.kind, frame.connection) == (Kind.OPEN, number)
    assert msgspec.msgpack.decode(frame.payload, type=Open) == LOGIN
    chosen.send(Kind.DATA, number, b"\x5aup")
    assert await host.next() == Frame(Kind.DATA, number, b"\x5aup")
    host.send(Kind.DATA, number, b"\x5adown")
    host.send(Kind.CLOSE, number, msgspec.msgpack.encode(Close(reason="expired", text="too long")))
    assert await rider.end == ("expired", "too long")
    assert rider.got == [b"\x5adown"]
    host.send(Kind.DATA, number, b"\x5alate")
    assert (await asyncio.wait_for(links.to("a"), PATIENCE)).alive


@pytest.mark.parametrize(
    ("kind", "connection", "payload"),
    [
        (Kind.DATA, 2, b"\x5ax"),
        (Kind.DATA, 0, b"\x5ax"),
        (Kind.CLOSE, 9, msgspec.msgpack.encode(Close(reason="x"))),
        (Kind.DATA, 1, b"\x14key exchange"),
        (Kind.DATA, 1, b""),
        (Kind.DATA, 1, b"\xff"),
        (Kind.OPEN, 2, msgspec.msgpack.encode(LOGIN)),
        (Kind.PAUSE, 1, b""),
        (Kind.HELLO, 1, b""),
        (Kind.CLOSE, 1, b"not a close"),
    ],
)
async def test_a_host_that_breaks_the_rules_is_cut_off(
    links: Links, host: FakeHost, kind: Kind, connection: int, payload: bytes
) -> None:
    rider = Rider()
    (await links.to("a")).open(rider, LOGIN)
    host.send(kind, connection, payload)
    reason, text = await asyncio.wait_for(rider.end, PATIENCE)
    assert (reason, text.startswith("pitstop: the sandbox host went away.")) == ("link_lost", True)
    assert rider.got == []
    await host.cut()


async def test_the_numbers_of_one_link_mean_nothing_on_another(links: Links, host: FakeHost) -> None:
    """A host cannot write into a terminal that another host serves."""
    victim, other = Rider(), Rider()
    (await links.to("a")).open(victim, LOGIN)
    writer = host.writer
    evil = FakeHost(host.tls)
    links._dialer = evil
    await links.to("b")
    evil.send(Kind.DATA, 1, b"\x5aevil")
    await evil.cut()
    (await links.to("a")).open(other, LOGIN)
    assert victim.got == []
    assert not victim.end.done()
    writer.close()
    evil.writer.close()


@pytest.mark.parametrize("wrong", [{"nonce": "0" * 32}, {"host": "b"}, {"worker": "worker-2"}])
async def test_only_who_was_asked_may_come(
    links: Links, host: FakeHost, wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "LINK_WITHIN", 0.3)
    host.hello = wrong
    with pytest.raises(Unreachable, match="did not dial"):
        await links.to("a")
    await host.cut()


async def test_a_nonce_counts_once(links: Links, host: FakeHost) -> None:
    await links.to("a")
    again = FakeHost(host.tls)
    await again.dial("a", host.asked[0])
    await again.cut()
    again.writer.close()


async def test_a_certificate_that_is_not_a_hosts(links: Links, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LINK_WITHIN", 0.3)
    host.name = "somebody"
    with pytest.raises(Unreachable):
        await links.to("a")


async def test_no_certificate_at_all(links: Links, host: FakeHost) -> None:
    context = ssl.create_default_context(cafile=host.tls / "ca.pem")
    address, port = links.address
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname="pitstop-relay")
    writer.write(pack(Kind.HELLO, 0, b""))
    with contextlib.suppress(ssl.SSLError, ConnectionResetError):
        assert await reader.read() == b""
    assert links._known == {}
    writer.close()


async def test_a_host_that_cannot_dial(links: Links, host: FakeHost) -> None:
    host.answers = False
    with pytest.raises(Unreachable, match="no route"):
        await links.to("a")


async def test_a_lost_host_ends_its_logins_and_is_dialled_again(links: Links, host: FakeHost) -> None:
    rider = Rider()
    first = await links.to("a")
    first.open(rider, LOGIN)
    host.writer.close()
    assert (await asyncio.wait_for(rider.end, PATIENCE))[0] == "link_lost"
    assert await links.to("a") is not first


async def test_a_silent_host_is_given_up(links: Links, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_EVERY", 0.05)
    monkeypatch.setattr(link, "SILENT_AFTER", 0.2)
    rider = Rider()
    (await links.to("a")).open(rider, LOGIN)
    assert (await asyncio.wait_for(rider.end, PATIENCE))[0] == "link_lost"


async def test_a_connection_without_a_hello_is_cut(
    links: Links, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "HELLO_WITHIN", 0.1)
    address, port = links.address
    await host.connect(DialRequest(address=address, port=port, worker="worker-1", nonce=""))
    await host.cut()
