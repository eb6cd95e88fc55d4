"""What is not served is refused with a reason, and what is served has bounds."""

from __future__ import annotations

import os

import asyncssh
import pytest
from tests.ssh_support import JOB, World, in_world


@in_world()
async def test_an_unknown_subsystem(ssh: World) -> None:
    status, out, err = await ssh.ssh("netconf", options=["-s"])
    assert (status, out) == (255, b"")
    assert b"subsystem request failed" in err


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
