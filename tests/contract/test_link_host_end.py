"""The sandbox host's end of the link against relays that lie."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import msgspec
import pytest
from asyncssh.packet import Boolean, Byte, String, UInt32
from tests.entered_jobs import LocalJob
from tests.link_tls import client_tls, make_tls
from tests.patience import PATIENCE
from tests.ssh_support import HOST, JOB, Access, allowed

from pitstop_common.link import Close, Frame, Hello, Kind, Open, Reader, pack
from pitstop_common.messages import AccessReply, DialRequest
from pitstop_relay import identity
from pitstop_sandbox import link
from pitstop_sandbox.channels.seen import Seen
from pitstop_sandbox.link import SshHost

CLIENT = asyncssh.generate_private_key("ssh-ed25519")


def login(key: asyncssh.SSHKey = CLIENT, job: str = JOB, session_id: bytes = b"s" * 32, **changed: object) -> Open:
    """A login as a user's client signs it."""
    message = (
        Byte(50) + String(job) + String("ssh-connection") + String("publickey") + Boolean(True)
        + String("ssh-ed25519") + String(key.public_data)
    )  # fmt: skip
    signature = key.sign(String(session_id) + message, b"ssh-ed25519")
    made = Open(job=job, session_id=session_id, message=message, signature=signature, key=key.public_data)
    return msgspec.structs.replace(made, **changed)


OPEN_CHANNEL = Byte(90) + String("session") + UInt32(0) + UInt32(2**21) + UInt32(32768)


def run(command: str, channel: int = 0) -> bytes:
    return Byte(98) + UInt32(channel) + String("exec") + Boolean(True) + String(command)


@dataclass
class FakeRelay:
    host: SshHost
    job: LocalJob
    port: int
    links: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=asyncio.Queue)
    _ready: list[Frame] = field(default_factory=list)
    _reader: Reader = field(default_factory=Reader)
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def link(self) -> Hello:
        request = DialRequest(address="127.0.0.1", port=self.port, worker="w", nonce="n")
        reply = await self.host.dial(request)
        assert reply.ok, reply.error
        self.streams = await self.links.get()
        frame = await self.next()
        assert frame.kind is Kind.HELLO
        return msgspec.msgpack.decode(frame.payload, type=Hello)

    def send(self, kind: Kind, connection: int, payload: bytes | msgspec.Struct = b"") -> None:
        assert self.streams is not None
        body = payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
        self.streams[1].write(pack(kind, connection, body))

    async def next(self) -> Frame:
        assert self.streams is not None
        async with asyncio.timeout(PATIENCE):
            while not self._ready:
                data = await self.streams[0].read(65536)
                if not data:
                    raise ConnectionResetError
                self._ready += self._reader.feed(data)
        return self._ready.pop(0)

    async def closed(self, connection: int) -> Close:
        """Skips what the connection says before its end."""
        while True:
            frame = await self.next()
            if frame.kind is Kind.CLOSE and frame.connection == connection:
                return msgspec.msgpack.decode(frame.payload, type=Close)

    async def start(self, connection: int, command: str, window: int = 2**21, proof: Open | None = None) -> None:
        """A login with a command that runs."""
        self.send(Kind.OPEN, connection, proof or login(session_id=bytes([connection]) * 32))
        self.send(Kind.DATA, connection, Byte(90) + String("session") + UInt32(0) + UInt32(window) + UInt32(32768))
        await self.output(connection, Byte(91))
        self.send(Kind.DATA, connection, run(command))

    async def output(self, connection: int, text: bytes) -> None:
        while True:
            frame = await self.next()
            assert (frame.connection, frame.kind) in {(connection, Kind.DATA), (0, Kind.PONG)}, frame
            if frame.kind is Kind.DATA and text in frame.payload:
                return

    async def cut(self) -> None:
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            while True:
                await self.next()


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[FakeRelay]:
    tls = make_tls(tmp_path / "tls")
    access = Access(
        {JOB: AccessReply(found=True, job=JOB, status="paused", host=HOST, offers=True, actor="ada",
                          allowed=(allowed("ada", CLIENT),)),
         "abcdefghijkl-2": AccessReply(found=True, job="abcdefghijkl-2", status="paused", host=HOST, offers=True)}
    )  # fmt: skip
    job = LocalJob(JOB, tmp_path)
    host = SshHost(
        access, lambda name: job if name == JOB else None, host=HOST, incarnation="1",
        tls=client_tls(tls, "pitstop-host"), seen=Seen(tmp_path / "seen"),
    )  # fmt: skip
    made: list[FakeRelay] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made[0].links.put_nowait((reader, writer))

    context = identity.link_tls(tls / "ca.pem", tls / "pitstop-relay.pem", tls / "pitstop-relay.key")
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    made.append(FakeRelay(host, job, server.sockets[0].getsockname()[1]))
    yield made[0]
    await host.aclose("stopped")
    if made[0].streams is not None:
        made[0].streams[1].transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await made[0].streams[1].wait_closed()
    server.close()


async def test_a_command_over_the_bare_link(relay: FakeRelay) -> None:
    assert await relay.link() == Hello(host=HOST, incarnation="1", worker="w", nonce="n")
    await relay.start(1, "echo hi")
    await relay.output(1, b"hi\n")


@pytest.mark.parametrize(
    ("proof", "why"),
    [
        (login(job="abcdefghijkl-2"), "the key is not allowed in this job"),
        (msgspec.structs.replace(login(job="abcdefghijkl-2"), job=JOB), "it was signed for another job"),
        (login(asyncssh.generate_private_key("ssh-ed25519")), "the key is not allowed in this job"),
        (login(session_id=b"x" * 32, signature=login().signature), "the signature is wrong"),
        (login(signature=b""), "cut short"),
        (login(session_id=b"short"), "not a session id"),
        (login(message=login().message + b"x"), "something follows the request"),
        (login(message=b""), "cut short"),
    ],
)
async def test_a_login_that_its_user_did_not_make(relay: FakeRelay, proof: Open, why: str) -> None:
    await relay.link()
    relay.send(Kind.OPEN, 1, proof)
    relay.send(Kind.DATA, 1, OPEN_CHANNEL)
    close = await relay.closed(1)
    assert close.reason == "bad_grant"
    assert why in close.text
    assert relay.job.said == []
    assert relay.host.sessions == 0


async def test_a_login_counts_once_also_after_a_restart(relay: FakeRelay, tmp_path: Path) -> None:
    await relay.link()
    relay.send(Kind.OPEN, 1, login())
    relay.send(Kind.OPEN, 2, login())
    assert "was used before" in (await relay.closed(2)).text
    relay.send(Kind.CLOSE, 1)
    await relay.job.until("closed", "ada", "exit")
    relay.host.seen = Seen(tmp_path / "seen")
    relay.send(Kind.OPEN, 3, login())
    assert "was used before" in (await relay.closed(3)).text
    assert len([said for said in relay.job.said if said[0] == "opened"]) == 1


@pytest.mark.parametrize(
    ("kind", "connection", "payload"),
    [
        (Kind.DATA, 2, OPEN_CHANNEL),
        (Kind.DATA, 0, OPEN_CHANNEL),
        (Kind.PAUSE, 7, b""),
        (Kind.OPEN, 1, msgspec.msgpack.encode(login(session_id=b"t" * 32))),
        (Kind.OPEN, 0, msgspec.msgpack.encode(login(session_id=b"t" * 32))),
        (Kind.OPEN, 2, b"not a login"),
        (Kind.HELLO, 1, b""),
    ],
)
async def test_a_relay_that_breaks_the_rules_is_cut_off(
    relay: FakeRelay, kind: Kind, connection: int, payload: bytes
) -> None:
    await relay.link()
    await relay.start(1, "echo up; cat")
    await relay.output(1, b"up\n")
    relay.send(kind, connection, payload)
    await relay.cut()
    await relay.job.until("closed", "ada", "disconnect")


async def test_a_relay_that_names_a_connection_of_another_relays_link_is_cut_off(relay: FakeRelay) -> None:
    await relay.link()
    await relay.start(1, "echo up; cat")
    await relay.output(1, b"up\n")
    other = FakeRelay(relay.host, relay.job, relay.port, links=relay.links)
    await other.link()
    other.send(Kind.DATA, 1, Byte(94) + UInt32(0) + String("typed by a stranger\n"))
    await other.cut()
    relay.send(Kind.DATA, 1, Byte(94) + UInt32(0) + String("typed by me\n"))
    frame = await relay.next()
    while b"typed by" not in frame.payload:
        frame = await relay.next()
    assert b"typed by me\n" in frame.payload


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x14",
        b"\xff",
        Byte(90) + b"\0",
        Byte(90) + String("session"),
        Byte(94) + UInt32(77) + String("x"),
        Byte(98) + UInt32(0) + String(b"\xff\xfe") + Boolean(True),
        Byte(91) + UInt32(0) * 4,
        Byte(92) + UInt32(9) * 2 + String("") * 2,
        Byte(81),
        Byte(99) + UInt32(0),
        Byte(110) + UInt32(0),
        Byte(94) + UInt32(0) + String(bytes(3 * 2**20 // 8)) + b"trailing",
    ],
)
async def test_a_message_that_is_wrong_ends_only_its_connection(relay: FakeRelay, message: bytes) -> None:
    await relay.link()
    for number in (1, 2):
        await relay.start(number, "echo up; cat")
        await relay.output(number, b"up\n")
    relay.send(Kind.DATA, 1, message)
    close = await relay.closed(1)
    assert close.reason == "protocol"
    assert close.text.startswith("pitstop: the connection broke: ")
    relay.send(Kind.DATA, 2, Byte(94) + UInt32(0) + String("still here\n"))
    await relay.output(2, b"still here\n")


async def test_more_than_the_window_ends_the_connection(relay: FakeRelay) -> None:
    await relay.link()
    await relay.start(1, "echo up; sleep 1000")
    await relay.output(1, b"up\n")
    for _ in range(10):
        relay.send(Kind.DATA, 1, Byte(94) + UInt32(0) + String(bytes(2**18)))
    assert "Window exceeded" in (await relay.closed(1)).text


async def test_too_much_before_the_grant(relay: FakeRelay) -> None:
    await relay.link()
    relay.host._access.away = True  # type: ignore[attr-defined]
    relay.send(Kind.OPEN, 1, login())
    for _ in range(3):
        relay.send(Kind.DATA, 1, Byte(94) + UInt32(0) + String(bytes(100_000)))
    assert (await relay.closed(1)).reason in {"protocol", "unavailable"}
    assert relay.job.said == []


async def test_a_pause_holds_the_processes_output(relay: FakeRelay) -> None:
    await relay.link()
    await relay.start(1, "cat /dev/zero", window=2**31)
    await relay.output(1, bytes(1000))
    relay.send(Kind.PAUSE, 1)
    visitor = next(iter(next(iter(relay.host._links)).visitors.values()))
    async with asyncio.timeout(PATIENCE):
        while not visitor._holds:
            await asyncio.sleep(0.01)
    relay.send(Kind.PING, 0, b"mark")
    while (await relay.next()).kind is not Kind.PONG:
        pass
    seen = relay.job.outputs
    relay.send(Kind.PING, 0, b"mark")
    assert (await relay.next()).kind is Kind.PONG
    assert relay.job.outputs == seen
    relay.send(Kind.RESUME, 1)
    await relay.output(1, bytes(1000))


@contextlib.contextmanager
def impostor(context: ssl.SSLContext) -> Iterator[int]:
    """Somebody who listens with a certificate that is not a relay's. Gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            accepted, _peer = server.accept()
            with accepted, contextlib.suppress(OSError):
                context.wrap_socket(accepted, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)
        assert not thread.is_alive()


async def test_a_relay_that_is_not_ours(relay: FakeRelay, tmp_path: Path) -> None:
    other = make_tls(tmp_path / "other")
    context = identity.link_tls(other / "ca.pem", other / "pitstop-relay.pem", other / "pitstop-relay.key")
    with impostor(context) as port:
        reply = await relay.host.dial(DialRequest(address="127.0.0.1", port=port, worker="w", nonce="n"))
    assert not reply.ok
    assert f"cannot reach the relay at 127.0.0.1:{port}" in reply.error


async def test_a_host_does_not_pass_as_a_relay(relay: FakeRelay, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    with impostor(identity.link_tls(tls / "ca.pem", tls / "pitstop-host.pem", tls / "pitstop-host.key")) as port:
        reply = await relay.host.dial(DialRequest(address="127.0.0.1", port=port, worker="w", nonce="n"))
    assert not reply.ok


async def test_a_silent_relay_is_given_up(relay: FakeRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENT_AFTER", 0.2)
    await relay.link()
    await relay.cut()


async def test_a_host_that_stops_takes_no_more_links(relay: FakeRelay) -> None:
    await relay.link()
    relay.send(Kind.OPEN, 1, login())
    relay.send(Kind.DATA, 1, OPEN_CHANNEL)
    await relay.next()
    closing = asyncio.ensure_future(relay.host.aclose("stopped", "bye"))
    assert await relay.closed(1) == Close(reason="stopped", text="bye")
    await relay.cut()
    await closing
    assert not (await relay.host.dial(DialRequest(address="127.0.0.1", port=1, worker="w", nonce="n"))).ok
