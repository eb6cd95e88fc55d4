"""The frames of the link, at both of its ends: a host that lies to a relay, and a relay that lies to a host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncssh
import msgspec
from asyncssh.packet import Boolean, Byte, String
from tests.fuzz.job import PlayedJob
from tests.fuzz.messages import CONVERSATIONS
from tests.fuzz.mutate import Mutator
from tests.fuzz.wire import Wire
from tests.link_tls import client_tls, make_tls
from tests.ssh_support import HOST, JOB, Access, allowed

from pitstop_common.limits import MAX_FRAME
from pitstop_common.link import Close, Hello, Kind, LinkError, Open, Reader, pack, pack_ending
from pitstop_common.messages import AccessReply, DialReply, DialRequest
from pitstop_relay.link import Link, Links
from pitstop_sandbox import link as host_link
from pitstop_sandbox.link import SshHost

_OFTEN: Final = (0.03, 0.1, 0.4)
_CLIENT: Final = asyncssh.generate_private_key("ssh-ed25519")
_STRANGER: Final = asyncssh.generate_private_key("ssh-ed25519")


def login(session_id: bytes, key: asyncssh.SSHKey = _CLIENT, job: str = JOB) -> Open:
    """As a client signs it."""
    message = (
        Byte(50) + String(job) + String("ssh-connection") + String("publickey") + Boolean(True)
        + String("ssh-ed25519") + String(key.public_data)
    )  # fmt: skip
    signature = key.sign(String(session_id) + message, b"ssh-ed25519")
    return Open(job=job, session_id=session_id, message=message, signature=signature, key=key.public_data)


class _Rider:
    """A person at the relay."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.ended = 0

    def down(self, message: bytes) -> None:
        self.got.append(message)

    def closed(self, reason: str, text: str) -> None:
        self.ended += 1

    def hold(self) -> None:
        """Reads nothing."""

    def release(self) -> None:
        """Reads again."""


class _Nowhere:
    """Asks nobody: the links come by themselves."""

    async def dial(self, host: str, request: DialRequest) -> DialReply:
        raise AssertionError("nobody is asked")


class Frames:
    """Three targets in turns: the reader alone, the relay's end, the host's end."""

    def __init__(self, host: SshHost, job: PlayedJob) -> None:
        self._host, self._job = host, job
        self._links = Links(_Nowhere(), "worker")
        self._proofs = 0
        self._sound = 0

    async def converse(self, mutator: Mutator) -> int:
        """A link from its first frame to its end."""
        target = mutator.random.choice((self._reader, self._relay, self._taken_relay, self._taken_relay))
        return await target(mutator)

    async def settle(self) -> None:
        """Every login has been served to its end."""
        while self._host.sessions or self._job.opened_count != self._job.closed_count:
            await asyncio.sleep(0.001)

    def check(self) -> None:
        """Nobody is inside whose proof was changed, or came twice."""
        assert self._job.opened_count <= self._sound, f"{self._job.opened_count} logins for {self._sound} proofs"
        assert not self._links._known and not self._links._unknown and not self._host._links

    def reached(self) -> dict[str, int]:
        """Sound logins that were let in, and what they started."""
        return {"let in": self._job.opened_count, "started": self._job.made}

    async def _reader(self, mutator: Mutator) -> int:
        reader, sent = Reader(), 0
        frames = mutator.stream([pack(Kind.DATA, 1, message) for message in mutator.random.choice(CONVERSATIONS)], 0.2)
        with contextlib.suppress(LinkError):
            for piece in mutator.pieces(b"".join(frames)):
                for frame in reader.feed(piece):
                    assert len(frame.payload) <= MAX_FRAME
                assert len(reader._buffer) <= MAX_FRAME + 9 + len(piece)
        sent += len(frames)
        return sent

    async def _relay(self, mutator: Mutator) -> int:
        """A host: it was asked to dial, and has two people."""
        wire = Wire()
        end = self._links
        nonce = mutator.random.randbytes(16).hex()
        wanted = asyncio.get_running_loop().create_future()
        end._wanted[nonce] = (HOST, wanted)
        hello = Hello(host=HOST, incarnation="1", worker="worker", nonce=nonce)
        link = Link(end)
        wire.joined(link)
        sound = mutator.chance(0.9)
        greeting = pack(Kind.HELLO, 0, msgspec.msgpack.encode(hello))
        wire.give(greeting if sound else mutator.changed(greeting))
        people = (_Rider(), _Rider())
        if link.alive:
            for each in people:
                link.open(each, login(b"s" * 32))
        frames = [pack(Kind.DATA, 1 + (number % 2), message) for number, message in enumerate(CONVERSATIONS[5])]
        frames += [
            pack(Kind.PING, 0, b"x"),
            pack(Kind.PONG, 0),
            pack(Kind.CLOSE, 2, _close()),
            pack(Kind.DATA, 1, b"\x5e"),
        ]
        said = mutator.stream(frames, mutator.random.choice(_OFTEN))
        for piece in mutator.pieces(b"".join(said)):
            wire.give(piece)
        assert all(message and 80 <= message[0] <= 127 for each in people for message in each.got)
        assert all(each.ended <= 1 for each in people)
        wire.end()
        await wire.gone.wait()
        end._wanted.pop(nonce)
        wanted.cancel()
        return len(said) + 1

    async def _taken_relay(self, mutator: Mutator) -> int:
        """It has one login that a person really made, and would like more."""
        wire = Wire()
        link = host_link._Link(self._host)
        wire.joined(link)
        self._proofs += 1
        true = login(self._proofs.to_bytes(32, "big"))
        proof = pack(Kind.OPEN, 1, msgspec.msgpack.encode(true))
        lies = [
            msgspec.structs.replace(true, job="abcdefghijkl-2"),
            msgspec.structs.replace(true, session_id=mutator.random.randbytes(32)),
            login(mutator.random.randbytes(32), _STRANGER),
            login(mutator.random.randbytes(32), job="abcdefghijkl-2"),
            msgspec.structs.replace(true, signature=mutator.changed(true.signature)),
            msgspec.structs.replace(true, message=mutator.changed(true.message)),
            msgspec.structs.replace(true, key=_STRANGER.public_data),
            Open(job=JOB, session_id=mutator.random.randbytes(32), token="ssh-0123456789abcdef." + "x" * 43),
        ]
        frames = [
            pack(Kind.OPEN, 2 + number, msgspec.msgpack.encode(lie))
            for number, lie in enumerate(mutator.random.sample(lies, 4))
        ]
        # A changed frame may still hold the whole proof, e.g. under another number of the connection.
        self._sound += 1
        frames.insert(0, proof if mutator.chance(0.8) else mutator.changed(proof))
        frames += [pack(Kind.DATA, 1, message) for message in mutator.random.choice(CONVERSATIONS)]
        frames += [
            pack(Kind.PAUSE, 1),
            pack(Kind.RESUME, 1),
            pack(Kind.PING, 0),
            pack(Kind.ENDING, 0, pack_ending(9)),
            proof,
        ]
        frames += [pack(Kind.CLOSE, 1, _close())]
        said = [frames[0], *mutator.stream(frames[1:], mutator.random.choice(_OFTEN))]
        patient = mutator.chance(0.5)
        for piece in said if patient else mutator.pieces(b"".join(said)):
            wire.give(piece)
            for _ in range(8 * patient):
                await asyncio.sleep(0)
        wire.end()
        await wire.gone.wait()
        return len(said)


def _close() -> bytes:
    return msgspec.msgpack.encode(Close(reason="exit", text="bye"))


@contextlib.asynccontextmanager
async def frames(folder: Path) -> AsyncIterator[Frames]:
    """As a part."""
    tls = make_tls(folder / "tls")
    reply = AccessReply(found=True, job=JOB, status="paused", host=HOST, offers=True, actor="ada",
                        allowed=(allowed("ada", _CLIENT),))  # fmt: skip
    job = PlayedJob(JOB)
    access = Access({JOB: reply})
    access.asked = _Forgetful()
    host = SshHost(access, lambda name: job if name == JOB else None, host=HOST, incarnation="1",
                   tls=client_tls(tls, "pitstop-host"))  # fmt: skip
    yield Frames(host, job)
    await host.aclose("stopped")


class _Forgetful(list[str]):
    """Of what was asked, in a test that asks a million times."""

    def append(self, _asked: str) -> None:
        pass
