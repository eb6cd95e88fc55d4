"""A short slice of `make fuzz`, the same each time; and what it found, as a person would meet it."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from asyncssh.packet import Boolean, Byte, String, UInt32
from tests.fuzz.__main__ import PARTS, run
from tests.fuzz.door import Client, Door
from tests.fuzz.job import PlayedJob
from tests.fuzz.messages import opened, requested
from tests.fuzz.mutate import Mutator
from tests.fuzz.watch import Fault
from tests.fuzz.wire import Wire
from tests.patience import PATIENCE
from tests.ssh_support import JOB, World, in_world

from pitstop_common.link import Kind, pack
from pitstop_relay.link import Link, Links
from pitstop_relay.transport import MAX_EARLY_PACKET
from pitstop_sandbox.channels.forwards import Forwards
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.channels.seam import Connection
from pitstop_sandbox.ports import Session

SEED = 20261121
AMOUNTS = {"frames": 5000, "seam": 4000, "plain": 2500, "sealed": 800, "inside": 800}


@pytest.mark.parametrize("part", PARTS)
def test_a_slice_of_each_part(part: str) -> None:
    done = run(part, AMOUNTS[part], SEED)
    assert done.packets >= AMOUNTS[part]
    assert sum(done.reached.values()) > 0, "the conversations end before they reach anything"


def test_a_fault_is_found_and_names_its_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch is awake: a mistake that is put in comes out."""

    def broken(self: Connection, message: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Connection, "_dispatch", broken)
    with pytest.raises(Fault, match=r"seam:0 of seed 1: (.|\n)*ZeroDivisionError"):
        run("seam", 100, 1)


def test_the_same_seed_makes_the_same_changes() -> None:
    first, again, other = (Mutator(*seed) for seed in ((1, "a"), (1, "a"), (2, "a")))
    data = bytes(range(64))
    changes = [[mutator.changed(data) for _ in range(50)] for mutator in (first, again, other)]
    assert changes[0] == changes[1] != changes[2]
    assert data not in changes[0]


async def test_a_connection_that_asyncssh_ends_by_itself_leaves_no_listener_in_the_sandbox() -> None:
    tasks: set[asyncio.Task[None]] = set()
    ends: list[str] = []
    person = Session(id="s", user="ada", fingerprint="SHA256:x", client="")
    forwards = Forwards(PlayedJob(JOB), person, Rules(), tasks)
    connection = Connection(asyncssh.SSHServerSession, forwards, lambda _message: None, ends.append)
    connection.feed(requested("tcpip-forward", String(""), UInt32(0)))
    async with asyncio.timeout(PATIENCE):
        while not tasks:
            await asyncio.sleep(0)
        connection._force_close(asyncssh.ProtocolError("as its tasks do"))
        await asyncio.wait(set(tasks))
    assert len(ends) == 1
    late = opened("session", 0)
    connection.feed(late)
    assert len(ends) == 1


@pytest.mark.parametrize("part", ["host", "relay"])
async def test_a_text_that_is_no_utf_8_cuts_the_link_and_nothing_else(part: str) -> None:
    payload = b"\x82\xa3job\xa2\xe2\x28\xaasession_id\xc0"
    wire = Wire()
    end: asyncio.Protocol
    if part == "relay":
        end = Link(Links(None, "worker"))  # type: ignore[arg-type]
        frame = pack(Kind.HELLO, 0, payload)
    else:
        from pitstop_sandbox import link

        end = link._Link(link.SshHost(None, lambda _job: None, host="h", incarnation="1", tls=None))  # type: ignore[arg-type]
        frame = pack(Kind.OPEN, 1, payload)
    wire.joined(end)
    wire.give(frame)
    assert wire.is_closing()
    await wire.gone.wait()


@in_world(ssh_max_tries=1)
async def test_what_follows_the_last_try_in_one_segment_is_not_heard(ssh: World) -> None:
    """A good signature behind one try too many opened the job on a connection that was being closed."""
    door = Door(ssh)
    client = Client(door._key, "curve25519-sha256", "aes128-gcm@openssh.com")
    wire = door.knock(client.wire)
    client.begin(wire)
    await client.secret.wait()
    await asyncio.sleep(0)
    segment = _Segment()
    client._relay = segment  # type: ignore[assignment]
    none = Byte(50) + String(JOB) + String("ssh-connection") + String("none")
    true = (
        Byte(50) + String(JOB) + String("ssh-connection") + String("publickey") + Boolean(True) + String("ssh-ed25519")
        + String(door._key.public_data)
    )  # fmt: skip
    signature = door._key.sign(String(client.session_id) + true, b"ssh-ed25519")
    for message in (Byte(5) + String("ssh-userauth"), none, none, none, true + String(signature)):
        client.say(message)
    await asyncio.sleep(0)
    wire.give(b"".join(segment.data))
    async with asyncio.timeout(PATIENCE):
        await wire.gone.wait()
    await door.settle()
    door.check()


@in_world()
async def test_who_is_not_let_in_cannot_have_large_packets_kept(ssh: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ssh.at.port)
    writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n" + (MAX_EARLY_PACKET + 1).to_bytes(4, "big") + bytes(4))
    async with asyncio.timeout(PATIENCE):
        said = await reader.read()
    assert b"Max packet size exceeded" in said
    writer.close()
    large = bytes(200_000)
    assert (await ssh.ssh("cat", stdin=large))[1] == large


@in_world()
async def test_a_signature_of_another_connection_is_refused(ssh: World) -> None:
    """Word for word what its owner's client has signed, and was let in with."""
    door = Door(ssh)
    true = (
        Byte(50) + String(JOB) + String("ssh-connection") + String("publickey") + Boolean(True) + String("ssh-ed25519")
        + String(door._key.public_data)
    )  # fmt: skip
    message = b""
    for result in ("ok", "bad_signature"):
        client = Client(door._key, "curve25519-sha256", "aes128-gcm@openssh.com")
        wire = door.knock(client.wire)
        client.begin(wire)
        await client.secret.wait()
        if not message:
            message = true + String(door._key.sign(String(client.session_id) + true, b"ssh-ed25519"))
        client.say(Byte(5) + String("ssh-userauth"))
        client.say(message)
        async with asyncio.timeout(PATIENCE):
            while ssh.metric("pitstop_relay_auth_total", method="publickey", result=result) == 0:
                await asyncio.sleep(0.001)
        wire.end()
        await wire.gone.wait()
    await door.settle()
    assert ssh.metric("pitstop_relay_auth_total", method="publickey", result="ok") == 1


class _Segment:
    def __init__(self) -> None:
        self.data: list[bytes] = []

    def give(self, data: bytes) -> None:
        self.data.append(data)
