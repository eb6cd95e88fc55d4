"""Commands through a real `ssh` client: status, streams, environment, refusals."""

from __future__ import annotations

import hashlib
import os

import asyncssh
import pytest
from asyncssh.packet import UInt32
from tests.ssh_support import JOB, World, in_world


@pytest.mark.parametrize("code", [0, 7, 255])
@in_world()
async def test_exit_status(ssh: World, code: int) -> None:
    assert await ssh.ssh(f"exit {code}") == (code, b"", b"")
    await ssh.job.until("closed", "ada", "exit")


@in_world()
async def test_a_signal_ends_the_command_and_the_client_says_255(ssh: World) -> None:
    status, _out, err = await ssh.ssh("kill -TERM $$")
    assert status == 255
    assert err == b""


@in_world()
async def test_signals_reach_the_group_however_early_they_come(ssh: World) -> None:
    async with asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    ) as client:
        for sent in ("INT", "break"):
            process = await client.create_process(
                "trap 'echo got it; exit 4' INT; echo up; while :; do sleep 0.05; done"
            )
            assert await process.stdout.readline() == "up\n"
            if sent == "break":
                assert await process.channel._make_request(b"break", UInt32(100))
            else:
                process.send_signal(sent)
            ended = await process.wait()
            assert (ended.exit_status, ended.stdout) == (4, "got it\n")
        early = await client.create_process("exec sleep 600")
        early.send_signal("TERM")  # before it runs
        ended = await early.wait()
        assert ended.exit_signal is not None and ended.exit_signal[0] == "TERM"
        unknown = await client.create_process("cat")
        unknown.send_signal("NO_SUCH")
        unknown.stdin.write_eof()
        assert (await unknown.wait()).exit_status == 0


@in_world()
async def test_stderr_is_separate(ssh: World) -> None:
    assert await ssh.ssh("echo out; echo err >&2") == (0, b"out\n", b"err\n")


@in_world()
async def test_builtins_and_the_steps_surroundings(ssh: World) -> None:
    status, out, _err = await ssh.ssh("export; pwd; umask; echo $STEP")
    assert status == 0
    assert b'declare -x STEP="two words"' in out
    assert f"{ssh.folder}\n0027\ntwo words\n".encode() in out


@in_world()
async def test_five_megabytes_both_ways(ssh: World) -> None:
    data = os.urandom(5 * 1024 * 1024)
    status, out, err = await ssh.ssh("cat", stdin=data)
    assert (status, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


@in_world()
async def test_a_host_that_breaks_says_so_and_goes_on(ssh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(ssh.job, "opened", broken)
        status, _out, err = await ssh.ssh("true")
        assert status == 255
        assert b"pitstop: internal error of the sandbox host; connect again in a moment." in err
    with monkeypatch.context() as patch:
        patch.setattr(ssh.job, "entry", broken)
        assert await ssh.ssh("true") == (126, b"", b"pitstop: internal error of the sandbox host\n")
    assert await ssh.ssh("echo fine") == (0, b"fine\n", b"")
