"""The relay before anybody is let in: raw bytes, changed packets, and changed messages inside sound encryption."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncssh
import pytest
from asyncssh.connection import SSHClientConnection, SSHClientConnectionOptions
from asyncssh.packet import Boolean, Byte, String, UInt32
from tests.fuzz.messages import CONVERSATIONS
from tests.fuzz.mutate import Mutator
from tests.fuzz.wire import Wire
from tests.ssh_support import JOB, World, world

from pitstop_relay import host_keys, login, transport
from pitstop_relay.service import Relay

_OFTEN: Final = (0.05, 0.2, 0.5)
_PIECES: Final = 40
"""Messages that one connection is sent at most, once it speaks in secret."""
_VERSIONS: Final = (
    b"SSH-2.0-OpenSSH_9.2p1", b"SSH-2.0-OpenSSH_10.0p2", b"SSH-2.0-dropbear_2022.83", b"SSH-2.0-libssh2_1.10.0",
    b"SSH-2.0-PuTTY_Release_0.78", b"SSH-1.99-OpenSSH", b"SSH-1.5-old", b"GET / HTTP/1.0",
)  # fmt: skip
TOKEN: Final = "ssh-0123456789abcdef." + "x" * 43
_LIMIT: Final = 100_000


class Door:
    """A relay without a network before it. Each conversation is a connection."""

    def __init__(self, made: World) -> None:
        self._world = made
        self._relay: Relay = made.relay
        self._options = transport.options(host_keys.load(made.folder / "ssh_host_ed25519_key"), 3600)
        self._key = asyncssh.read_private_key(made.folder / "ada")
        authority = asyncssh.generate_private_key("ssh-ed25519")  # nobody trusts it
        self._certificate = authority.generate_user_certificate(self._key, "ada", principals=["ada", JOB])
        self._guests: dict[object, str] = self._relay._guests  # type: ignore[assignment]
        self.connections = 0

    async def settle(self) -> None:
        """Nobody stands before the door."""
        while self._relay._doorkeeper.count:
            await asyncio.sleep(0.001)
        self._world.denied.clear()
        self._world.access.asked.clear()

    def check(self) -> None:
        """Nobody is in."""
        assert self._world.metric("pitstop_relay_auth_total", method="publickey", result="ok") == 0
        assert self._world.job.said == [] and self._world.host.sessions == 0
        assert self._relay._doorkeeper.count == 0 and not self._guests

    def reached(self) -> dict[str, int]:
        """Connections, and logins that were judged and refused."""
        refused = self._world.metric("pitstop_relay_auth_total", method="publickey", result="bad_signature")
        return {"connections": self.connections, "refused": int(refused)}

    def knock(self, client: Wire) -> Wire:
        """A connection; what the relay says goes to `client`. Returns the end that the relay has."""
        self.connections += 1
        loop = asyncio.get_running_loop()

        def heard(data: bytes) -> None:
            loop.call_soon(client.give, data)

        wire = Wire(heard, f"203.0.{self.connections // 250 % 250}.{self.connections % 250}")
        self._relay.welcome(wire, self._options)
        return wire


class Plain(Door):
    """What a client says before the first keys are taken, and some that looks like what comes after."""

    def __init__(self, made: World) -> None:
        super().__init__(made)
        self._said: list[list[bytes]] = []

    async def converse(self, mutator: Mutator) -> int:
        """Said before by a real client, changed."""
        if not self._said:
            self._said = [await self._record(*pair) for pair in _exchanges()]
        version, *packets = mutator.random.choice(self._said)
        if mutator.chance(0.2):
            version = mutator.random.choice(_VERSIONS) + b"\r\n"
        if mutator.chance(0.1):
            version = mutator.changed(version)
        often = mutator.random.choice(_OFTEN)
        if mutator.chance(0.7):  # well framed, with a changed message
            bodies = [packet[5 : len(packet) - packet[4]] for packet in packets]
            packets = [_framed(body, mutator) for body in mutator.stream(bodies, often)]
        else:
            packets = mutator.stream(packets, often)
        packets += [mutator.random.randbytes(mutator.random.choice((5, 64, 700)))] * mutator.chance(0.5)
        client = _Deaf()
        wire = self.knock(client.wire)
        sent = 0
        for each in (version, *packets):
            sent += 1
            for piece in mutator.pieces(each):
                wire.give(piece)
                if mutator.chance(0.3):
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self._leave(wire)
        return sent

    async def _record(self, exchange: str, cipher: str) -> list[bytes]:
        """The version line, and the packets of a client until its keys are taken."""
        client = Client(self._key, exchange, cipher)
        wire = self.knock(client.wire)
        client.begin(wire)
        await client.secret.wait()
        await self._leave(wire)
        return client.plain

    @staticmethod
    async def _leave(wire: Wire) -> None:
        wire.end()
        async with asyncio.timeout(30):
            await wire.gone.wait()


class Sealed(Door):
    """What a client says in secret, before it is let in."""

    async def converse(self, mutator: Mutator) -> int:
        """A key exchange, and then a changed conversation. Nothing of it is a login."""
        client = Client(self._key, *mutator.random.choice(_exchanges()))
        wire = self.knock(client.wire)
        client.begin(wire)
        async with asyncio.timeout(60):
            await client.secret.wait()
        sent = 0
        often = mutator.random.choice(_OFTEN)
        while sent < _PIECES and not wire.is_closing():
            for message in self._said(mutator, client, often):
                if wire.is_closing():
                    break
                client.say(message)
                sent += 1
                if mutator.chance(0.4):
                    await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
        wire.end()
        async with asyncio.timeout(60):
            await wire.gone.wait()
        return sent

    def _said(self, mutator: Mutator, client: Client, often: float) -> list[bytes]:
        key, blob = self._key, self._key.public_data
        true = request(JOB) + String("publickey") + Boolean(True) + String("ssh-ed25519") + String(blob)
        elsewhere = key.sign(String(mutator.random.randbytes(32)) + true, b"ssh-ed25519")
        here = key.sign(String(client.session_id) + true, b"ssh-ed25519")
        kind, proof = b"ssh-ed25519-cert-v01@openssh.com", self._certificate.public_data
        certified = request(JOB) + String("publickey") + Boolean(True) + String(kind) + String(proof)
        tries = [
            Byte(5) + String("ssh-userauth"),
            request(JOB) + String("none"),
            request(JOB) + String("publickey") + Boolean(False) + String("ssh-ed25519") + String(blob),
            true + String(elsewhere),
            mutator.changed(true) + String(here),
            true + String(mutator.changed(here)),
            request("root") + String("publickey") + Boolean(True) + String("ssh-ed25519") + String(blob) + String(here),
            request(JOB) + String("password") + Boolean(False) + String("hunter2"),
            request(JOB) + String("password") + Boolean(True) + String("a") + String("b"),
            request(JOB) + String("keyboard-interactive") + String("") + String(""),
            request(JOB)
            + String("hostbased")
            + String("ssh-ed25519")
            + String(blob)
            + String("h")
            + String("u")
            + String(here),
            request(JOB) + String("password") + Boolean(False) + String(TOKEN),
            certified + String(self._key.sign(String(client.session_id) + certified, b"ssh-ed25519")),
            Byte(61) + UInt32(1) + String("answer"),
        ]
        others = [
            Byte(2) + String("ignored"), Byte(3) + UInt32(1), Byte(4) + Boolean(True) + String("debug") + String(""),
            Byte(7) + UInt32(1) + String("server-sig-algs") + String("ssh-ed25519"), Byte(21), Byte(52), Byte(51),
            Byte(30) + String(bytes(32)), Byte(6) + String("ssh-userauth"), client.offer(),
            *mutator.random.choice(CONVERSATIONS)[:3],
        ]  # fmt: skip
        said = tries[:1] + mutator.random.sample(tries, 6)
        if mutator.chance(0.3):
            said.insert(mutator.random.randrange(len(said)), mutator.random.choice(others))
        return [message for message in mutator.stream(said, often) if message != true + String(here)]


class Client:
    """asyncssh's own, up to its keys. From then on it says what it is told to, and hears nothing."""

    def __init__(self, key: asyncssh.SSHKey, exchange: str, cipher: str) -> None:
        options = SSHClientConnectionOptions(
            username=JOB, known_hosts=None, client_keys=[key], agent_path=None, config=None, gss_host=None,
            kex_algs=[exchange], encryption_algs=[cipher], login_timeout=0, connect_timeout=None,
        )  # fmt: skip
        self._connection = _Exchange(self, options)
        self.wire = Wire(self._to_relay)
        self.plain: list[bytes] = []
        self.secret = asyncio.Event()
        self._relay: Wire
        self._said_so_far = 0

    def begin(self, relay: Wire) -> None:
        """Connect."""
        self._relay = relay
        self.wire.joined(self._connection)

    @property
    def session_id(self) -> bytes:
        return self._connection._session_id

    def say(self, message: bytes) -> None:
        """A message, encrypted as it should be."""
        self._connection.say(message)

    def offer(self) -> bytes:
        """Its first message: to begin another key exchange."""
        return self._connection._client_kexinit

    def _to_relay(self, data: bytes) -> None:
        if not self.secret.is_set():
            self.plain.append(data)
        asyncio.get_running_loop().call_soon(self._relay.give, data)


class _Exchange(SSHClientConnection):
    def __init__(self, client: Client, options: Any) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._client = client

    def say(self, message: bytes) -> None:
        self._auth_complete = self._kex_complete = True  # it would keep back what is too early
        super().send_packet(message[0] if message else 0, message[1:])

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if not self._client.secret.is_set() and pkttype != 2:
            super().send_packet(pkttype, *args, handler=handler)
        if self._send_encryption:
            self._client.secret.set()

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if not self._client.secret.is_set():
            super().data_received(data, datatype)

    def connection_lost(self, exc: Exception | None = None) -> None:
        self._client.secret.set()
        super().connection_lost(exc)


class _Deaf:
    """A client that hears nothing."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.wire._protocol = asyncio.Protocol()


def _exchanges() -> list[tuple[str, str]]:
    return [("curve25519-sha256", "aes128-gcm@openssh.com"), ("mlkem768x25519-sha256", "aes256-ctr")]


def request(user: str) -> bytes:
    """The head of a login request."""
    return Byte(50) + String(user) + String("ssh-connection")


def _framed(body: bytes, mutator: Mutator) -> bytes:
    padding = -(5 + len(body)) % 8
    padding += 8 if padding < 4 else 0
    if mutator.chance(0.03):
        padding = mutator.random.choice((0, 1, 255))
    return UInt32(1 + len(body) + padding) + bytes((padding,)) + body + bytes(padding)


@contextlib.asynccontextmanager
async def open_relay(folder: Path) -> AsyncIterator[World]:
    """A relay with a host behind it, for as many strangers as come."""
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(login, "REFUSED_AFTER", 0.0)  # nobody who guesses is made to wait
        async with _world(folder) as made:
            yield made


@contextlib.asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[World]:
    async with world(
        folder, ssh_max_connections=_LIMIT, ssh_max_logins=_LIMIT, ssh_max_logins_per_address=_LIMIT
    ) as made:
        yield made


@contextlib.asynccontextmanager
async def plain(folder: Path) -> AsyncIterator[Plain]:
    """As a part."""
    async with open_relay(folder) as made:
        yield Plain(made)


@contextlib.asynccontextmanager
async def sealed(folder: Path) -> AsyncIterator[Sealed]:
    """As a part."""
    async with open_relay(folder) as made:
        yield Sealed(made)
