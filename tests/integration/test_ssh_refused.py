"""What is not supported yet is refused with a reason, and reaches nothing of the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from tests.ssh_support import JOB, World, in_world, screen


class Bait:
    """A listener of this host that nobody must reach."""

    def __init__(self, sock: socket.socket) -> None:
        sock.listen()
        sock.setblocking(False)
        self.sock = sock

    @property
    def touched(self) -> bool:
        try:
            self.sock.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def bait(path: Path | None = None) -> Iterator[Bait]:
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as sock:
        sock.bind(str(path) if path else ("127.0.0.1", 0))
        yield Bait(sock)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@in_world()
async def test_a_forward_to_the_hosts_loopback(ssh: World) -> None:
    with bait() as listener:
        port = listener.sock.getsockname()[1]
        status, out, err = await ssh.ssh(options=["-W", f"127.0.0.1:{port}"])
        assert not listener.touched
    assert status != 0
    assert out == b""
    assert b"port forwarding (-L, -D, -W) is not supported yet" in err


@pytest.mark.parametrize("kind", ["-L", "-D"])
@in_world()
async def test_a_local_forward_leaves_the_session_alone(ssh: World, kind: str) -> None:
    with bait() as listener:
        port = listener.sock.getsockname()[1]
        local = free_port()
        forward = f"{local}:127.0.0.1:{port}" if kind == "-L" else str(local)
        client = await asyncio.create_subprocess_exec(
            *ssh.ssh_args(kind, forward, "-o", "ExitOnForwardFailure=yes"), "echo up; cat",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert client.stdout is not None
        assert await client.stdout.readline() == b"up\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        if kind == "-D":
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        assert await reader.read() == b""
        writer.close()
        out, err = await client.communicate(b"still here")
        assert not listener.touched
    assert (client.returncode, out) == (0, b"still here")
    assert b"port forwarding (-L, -D, -W) is not supported yet" in err


@pytest.mark.parametrize("what", ["127.0.0.1:{port}:127.0.0.1:22", "{folder}/made.sock:127.0.0.1:22"])
@in_world()
async def test_no_listener_of_the_host_is_opened(ssh: World, what: str) -> None:
    port = free_port()
    forward = what.format(port=port, folder=ssh.folder)
    status, _out, err = await ssh.ssh("true", options=["-R", forward, "-o", "ExitOnForwardFailure=yes"])
    assert status == 255
    assert b"remote port forwarding failed" in err or b"remote forwarding failed" in err.lower(), err
    assert not (ssh.folder / "made.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@in_world()
async def test_unix_sockets_of_the_host_are_out_of_reach(ssh: World) -> None:
    with bait(ssh.folder / "docker.sock") as listener:
        async with asyncssh.connect(
            "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
        ) as client:
            with pytest.raises(asyncssh.ChannelOpenError, match="forwarding of unix sockets is not supported yet"):
                await client.open_unix_connection(str(ssh.folder / "docker.sock"))
            with pytest.raises(asyncssh.ChannelListenError):
                await client.start_unix_server(lambda *_: None, str(ssh.folder / "new.sock"))
            with pytest.raises(asyncssh.ChannelOpenError, match="tunnel devices are not supported"):
                await client.open_tun()
            with pytest.raises(asyncssh.ChannelOpenError, match="port forwarding"):
                await client.open_connection("127.0.0.1", ssh.at.port)
            assert (await client.run("echo still here")).stdout == "still here\n"
        assert not listener.touched
    assert not (ssh.folder / "new.sock").exists()


@in_world()
async def test_sftp_and_new_scp_say_what_to_do_instead(ssh: World) -> None:
    (ssh.folder / "secret").write_text("of the host")
    status, out, err = await ssh.ssh("sftp", options=["-s"])
    assert (status, out) == (1, b"")
    assert err.startswith(b"pitstop: sftp is not supported yet. Copy with `scp -O`")
    with_key = [part for part in ssh.ssh_args() if part not in ("ssh", f"{JOB}@127.0.0.1")]
    with_key[with_key.index("-p")] = "-P"
    client = await asyncio.create_subprocess_exec(
        "scp", *with_key, f"{JOB}@127.0.0.1:{ssh.folder}/secret", str(ssh.folder / "copy"),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _out, err = await client.communicate()
    assert client.returncode != 0
    assert b"sftp is not supported yet" in err
    assert not (ssh.folder / "copy").exists()
    assert ssh.job.processes == []


@in_world()
async def test_an_unknown_subsystem(ssh: World) -> None:
    status, out, err = await ssh.ssh("netconf", options=["-s"])
    assert (status, out) == (255, b"")
    assert b"subsystem request failed" in err


@in_world()
async def test_the_agent_stays_at_home_and_the_person_is_told(ssh: World) -> None:
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(ssh.folder / "agent.sock"), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(10):
            while not (ssh.folder / "agent.sock").exists():
                await asyncio.sleep(0.01)
        before = set(Path("/tmp").glob("asyncssh-*"))
        options = ["-A", "-o", f"IdentityAgent={ssh.folder}/agent.sock"]
        assert await ssh.ssh("echo ${SSH_AUTH_SOCK-none}", options=options) == (0, b"none\n", b"")
        with screen(ssh, options=options) as person:
            await person.until("agent forwarding (-A) is not supported yet")
            person.type("exit\n")
            await person.ended()
        assert set(Path("/tmp").glob("asyncssh-*")) <= before
    finally:
        agent.terminate()
        await agent.wait()


@in_world()
async def test_x11_is_refused(ssh: World) -> None:
    class Client(asyncssh.SSHClient):
        pass

    async with asyncssh.connect(
        "127.0.0.1",
        ssh.at.port,
        username=JOB,
        client_keys=[str(ssh.folder / "ada")],
        known_hosts=None,
        config=None,
        client_factory=Client,
    ) as client:
        with pytest.raises(asyncssh.ChannelOpenError, match="X11"):
            await client.run("true", x11_forwarding=True, x11_display=":0")


@in_world()
async def test_only_harmless_variables_are_taken(ssh: World) -> None:
    sent = ["LC_ALL=C.UTF-8", "NO_COLOR=1", "LD_PRELOAD=/evil.so", "PATH=/evil", "STEP=other", "BASH_ENV=/evil"]
    options = ["-o", "SetEnv=" + " ".join(sent)]
    status, out, _err = await ssh.ssh("env", options=options)
    assert status == 0
    got = dict(line.split("=", 1) for line in out.decode().splitlines())
    assert (got["LC_ALL"], got["NO_COLOR"]) == ("C.UTF-8", "1")
    assert (got["STEP"], got["PATH"]) == ("two words", os.environ["PATH"])
    assert "LD_PRELOAD" not in got
    assert "BASH_ENV" not in got


@in_world()
async def test_a_sandbox_that_starts_no_process_says_why(ssh: World) -> None:
    ssh.job.spawn_error = "the sandbox is full: 1024 processes"
    assert await ssh.ssh("true") == (126, b"", b"pitstop: the sandbox is full: 1024 processes\n")


@in_world()
async def test_more_channels_than_there_may_be(ssh: World) -> None:
    async with asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    ) as client:
        running = [await client.create_process("cat") for _ in range(64)]
        with pytest.raises(asyncssh.ChannelOpenError, match="64 channels are open"):
            await client.create_process("cat")
        for process in running:
            process.stdin.write_eof()
        for process in running:
            await process.wait()
        assert (await client.run("echo again")).stdout == "again\n"


@in_world()
async def test_keepalives_are_answered(ssh: World) -> None:
    options = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"]
    status, out, err = await ssh.ssh("sleep 2.5; echo done", options=options)
    assert (status, out, err) == (0, b"done\n", b"")
