"""The relays' host key is changed while people log in: stock OpenSSH that never asks, no prompt and no refusal."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.patience import PATIENCE
from tests.ssh_support import World, in_world
from tests.whole_system import free_port

from pitstop_cli import relay_keys
from pitstop_common.errors import ConfigError
from pitstop_common.host_keys import certificate_of, next_of
from pitstop_common.messages import Person, WhoReply
from pitstop_relay import host_keys
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.service import Relay


class Door:
    """One address, at which one relay after the other answers: as of several behind a name."""

    def __init__(self, ssh: World) -> None:
        self.ssh = ssh
        self.port = free_port()
        ssh.at = msgspec.structs.replace(ssh.at, port=self.port)

    @contextlib.asynccontextmanager
    async def relay(self, key: Path) -> AsyncIterator[str]:
        """One that has read the files beside `key` as they were at its start. Yields the lines it hands out."""
        old = self.ssh.relay
        config = msgspec.structs.replace(old._config, ssh_listen=f"127.0.0.1:{self.port}", ssh_host_key=key)
        relay = Relay(config, RelayMetrics(CollectorRegistry()), old.access, old.links._dialer, old._events)
        at = await relay.start()
        try:
            yield at.known_hosts
        finally:
            await relay.stop()

    def client(self, name: str, lines: str = "") -> Client:
        path = self.ssh.folder / f"known_hosts.{name}"
        if lines:
            path.write_text(lines + "\n")
        return Client(self.ssh, path)


class Client:
    """Somebody's ssh with a known_hosts of their own."""

    def __init__(self, ssh: World, known_hosts: Path) -> None:
        self.ssh = ssh
        self.known_hosts = known_hosts

    async def enters(self, *options: str) -> None:
        """Without a word."""
        assert await self.tries(*options) == (0, b"in\n", b"")

    async def tries(self, *options: str) -> tuple[int, bytes, bytes]:
        pinned = ["-o", f"UserKnownHostsFile={self.known_hosts}", *options]
        return await self.ssh.ssh("echo in", options=pinned)

    async def learns(self, holds: Callable[[int], bool], *options: str) -> bytes:
        """A login that lasts until so many lines are known. What it said."""
        client = await asyncio.create_subprocess_exec(
            *self.ssh.ssh_args("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "UpdateHostKeys=yes", *options),
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert client.stdin is not None
        async with asyncio.timeout(PATIENCE):
            while not holds(len(self.lines())):
                assert client.returncode is None
                await asyncio.sleep(0.02)
            _out, err = await client.communicate(b"")
        assert client.returncode == 0
        return err

    def lines(self) -> list[str]:
        return self.known_hosts.read_text().splitlines()


def keygen(*words: str | Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True)


def copy(key: Path, folder: Path) -> Path:
    """The files of a key on another relay, as they are now."""
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for file in key.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o600)
    return folder / key.name


@in_world()
async def test_a_rotation_by_the_next_key(ssh: World) -> None:
    """Relay `a` is changed first, `b` later, and people meet both in turns."""
    door = Door(ssh)
    (ssh.folder / "a").mkdir()
    a = ssh.folder / "a" / "key"
    async with door.relay(a) as first:
        learner, pinned = door.client("learner", first), door.client("pinned", first)
        await learner.enters()
        await learner.learns(lambda count: count == 1)
    b = copy(a, ssh.folder / "b")

    relay_keys.make_next(a)
    async with door.relay(a) as both:
        assert both.splitlines()[0] == first and len(both.splitlines()) == 2
        handed_out = door.client("handed-out", both)
        assert await learner.learns(lambda count: count == 2) == b""
        assert learner.lines() == both.splitlines()
        await pinned.enters()
    async with door.relay(b):  # not told yet
        for client in (learner, pinned, handed_out):
            await client.enters()
    b = copy(a, ssh.folder / "b")

    relay_keys.switch(a)
    async with door.relay(a) as new:
        assert new.splitlines() == both.splitlines()[::-1]
        await learner.enters("-o", "UpdateHostKeys=yes")
        await handed_out.enters()
        status, _out, err = await pinned.tries()
        assert status == 255 and b"REMOTE HOST IDENTIFICATION HAS CHANGED" in err, "who was told nothing is not led on"
    async with door.relay(b):
        for client in (learner, handed_out, pinned):
            await client.enters("-o", "UpdateHostKeys=no")
        assert await learner.learns(lambda count: count == 2) == b""
    b = copy(a, ssh.folder / "b")

    assert relay_keys.retire(a)
    async with door.relay(a) as last:
        assert last == new.splitlines()[0]
        await handed_out.enters()
        await learner.learns(lambda count: count == 1)
        assert learner.lines() == [last]
    async with door.relay(b):
        await learner.enters()
        await handed_out.enters()


@in_world()
async def test_a_rotation_by_certificate(ssh: World) -> None:
    """Who trusts the authority needs to know no key."""
    door = Door(ssh)
    key, authority = ssh.folder / "host" / "key", ssh.folder / "authority"
    key.parent.mkdir()
    keygen("-t", "ed25519", "-N", "", "-f", authority)

    def sign(target: Path, name: str, *validity: str) -> None:
        keygen("-s", authority, "-h", "-I", "relay", "-n", name, *validity, f"{target}.pub")

    keygen("-t", "ed25519", "-N", "", "-f", key)
    sign(key, "127.0.0.1", "-V", "-1m:+1d")
    async with door.relay(key) as lines:
        plain, trusted = lines.splitlines()
        assert trusted == f"@cert-authority [127.0.0.1]:{door.port} {_public(authority)}"
        assert relay_keys.known_hosts(relay_keys.all_of(key), "127.0.0.1", door.port) == [plain, trusted]
        believer, pinned = door.client("believer", trusted), door.client("pinned", plain)
        await believer.enters()
        await pinned.enters()
        status, _out, _err = await believer.tries("-o", "HostKeyAlgorithms=ssh-ed25519")
        assert status == 255, "the key alone is not known to it"
    keygen("-t", "ed25519", "-N", "", "-f", next_of(key))
    sign(next_of(key), "127.0.0.1", "-V", "-1m:+1d")
    relay_keys.switch(key)
    async with door.relay(key) as lines:
        await believer.enters()
        assert trusted in lines.splitlines()
    for name, validity, fault in (
        ("ci.example", "-1m:+1d", "principal mismatch"), ("127.0.0.1", "-2d:-1d", "expired"),
    ):  # fmt: skip
        sign(key, name, "-V", validity)
        with pytest.raises(ConfigError, match=f"clients would refuse the host certificate for '127.0.0.1'.*{fault}"):
            async with door.relay(key):
                pass
    sign(authority, "127.0.0.1")
    certificate_of(authority).rename(certificate_of(key))
    with pytest.raises(ConfigError, match="is not one of the key"):
        host_keys.load(key)
    certificate_of(key).write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot be used"):
        host_keys.load(key)


@in_world()
async def test_answers_of_other_requests_stay_in_their_order(ssh: World) -> None:
    """The proof takes the place of one answer, whatever is asked before and after it."""
    door = Door(ssh)
    key = ssh.folder / "host" / "key"
    host_keys.load(key)
    relay_keys.make_next(key)
    async with door.relay(key) as lines:
        learner = door.client("learner", lines.splitlines()[0])
        many = [word for port in range(1, 5) for word in ("-R", f"0:127.0.0.1:{port}")]
        options = ["-o", "ServerAliveInterval=1", "-o", "ExitOnForwardFailure=yes", *many]
        said = await learner.learns(lambda count: count == 2, *options)
        assert said.count(b"Allocated port") == 4
        assert learner.lines() == lines.splitlines()


@in_world()
async def test_a_proof_is_given_once_and_only_for_our_keys(ssh: World) -> None:
    door = Door(ssh)
    key = ssh.folder / "host" / "key"
    relay_keys_made = host_keys.load(key)
    ssh.access.known[asyncssh.read_public_key(ssh.folder / "ada.pub").get_fingerprint()] = WhoReply(
        people=(Person(org="acme", user="ada"),)
    )
    prove = b"hostkeys-prove-00@openssh.com"
    ours = asyncssh.packet.String(relay_keys_made.current.public_data)
    other = asyncssh.packet.String(asyncssh.generate_private_key("ssh-ed25519").public_data)
    async with door.relay(key):
        for user in (ssh.ssh_args()[-1].partition("@")[0], "root"):
            for bad in (other, ours + ours, ours + other, b"\0\0"):
                client: Any
                async with await _client(door, user) as client:
                    with contextlib.suppress(asyncssh.Error):  # cut short: the connection ends
                        assert (await client._make_global_request(prove, bad))[0] == 82
            async with await _client(door, user) as client:
                kind, answer = await client._make_global_request(prove, ours)
                assert kind == 81 and len(answer.get_string()) > 64
                assert (await client._make_global_request(prove, ours))[0] == 82


async def _client(door: Door, user: str) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", door.port, username=user, client_keys=[str(door.ssh.folder / "ada")], known_hosts=None, config=None
    )


def _public(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])
