"""sftp and scp inside a real sandbox, with the image's server and with ours, and what is said when there is neither."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from tests.ssh_support import JOB, World, in_world

from pitstop_sandbox.channels import command

SERVERS = {
    "openssh": command._SERVER,
    "pitstop": command._SERVER.replace("/sftp-server", "/no-sftp-server"),
    "none": command._SERVER.replace("/sftp-server", "/no-sftp-server").replace("command -v", "false"),
}
both = pytest.mark.parametrize("server", ["openssh", "pitstop"])
"""The image's own sftp-server, and the one that we bring where there is none."""


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the sandbox look as if it had only that server."""
    return lambda server: monkeypatch.setattr(command, "_SERVER", SERVERS[server])


@contextlib.asynccontextmanager
async def client(ssh: World):  # type: ignore[no-untyped-def]
    """asyncssh's sftp client."""
    async with (
        asyncssh.connect("127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")],
                         known_hosts=None, config=None) as connection,
        connection.start_sftp_client() as sftp,
    ):  # fmt: skip
        yield sftp


async def copy(ssh: World, *args: str, program: str = "scp") -> tuple[int, bytes]:
    """OpenSSH's scp or sftp: exit status, and what it said."""
    options = [part for part in ssh.ssh_args() if part not in ("ssh", f"{JOB}@127.0.0.1")]
    options[options.index("-p")] = "-P"
    made = await asyncio.create_subprocess_exec(
        program, *options, *args, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await made.communicate()
    assert made.returncode is not None
    return made.returncode, out


def work(ssh: World) -> Path:
    return ssh.folder / "job" / "work"


@both
@in_world("namespaces")
async def test_files_go_there_and_back_whole(ssh: World, server: str, use: Callable[[str], None]) -> None:
    use(server)
    data = os.urandom(5_000_001)
    (ssh.folder / "big").write_bytes(data)
    (ssh.folder / "tree" / "deep").mkdir(parents=True)
    (ssh.folder / "tree" / "deep" / "name with spaces é").write_bytes(b"x")
    there = f"{JOB}@127.0.0.1:"
    assert await copy(ssh, "-q", f"{ssh.folder}/big", there) == (0, b"")
    assert (work(ssh) / "big").read_bytes() == data, "it is where the step works"
    assert (work(ssh) / "big").stat().st_uid == work(ssh).stat().st_uid
    assert await copy(ssh, "-q", "-p", "-r", f"{ssh.folder}/tree", f"{there}tree") == (0, b"")
    assert await copy(ssh, "-q", "-r", f"{there}/home/runner/work/tree", str(ssh.folder / "back")) == (0, b"")
    assert (ssh.folder / "back" / "deep" / "name with spaces é").read_bytes() == b"x"
    assert await copy(ssh, "-q", f"{there}big", str(ssh.folder / "big2")) == (0, b"")
    assert (ssh.folder / "big2").read_bytes() == data
    assert ssh.job.bytes > 2 * len(data)
    assert ("used", "sftp", "") in ssh.job.said


@both
@in_world("namespaces")
async def test_every_operation(ssh: World, server: str, use: Callable[[str], None]) -> None:
    use(server)
    async with client(ssh) as sftp:
        assert await sftp.realpath(".") == "/home/runner/work"
        await sftp.makedirs("a/b")
        async with sftp.open("a/f", "wb") as file:
            await file.write(b"0123456789")
            await file.write(b"X", 3)
            await file.fsync()
        async with sftp.open("a/f", "ab") as file:
            await file.write(b"+")
        async with sftp.open("a/f", "rb") as file:
            assert await file.read() == b"012X456789+"
            assert await file.read(3, 2) == b"2X4"
            assert (await file.stat()).size == 11
        await sftp.setstat("a/f", asyncssh.SFTPAttrs(permissions=0o640, atime=1_000_000, mtime=2_000_000))
        found = await sftp.stat("a/f")
        assert (stat.S_IMODE(found.permissions or 0), found.mtime) == (0o640, 2_000_000)
        await sftp.truncate("a/f", 4)
        assert await sftp.getsize("a/f") == 4
        # asyncssh has the arguments the other way round for servers whose version does not say OpenSSH.
        await sftp.symlink("a/link", "f")
        assert await sftp.readlink("a/link") == "f"
        assert await sftp.islink("a/link") and (await sftp.lstat("a/link")).permissions != found.permissions
        await sftp.link("a/f", "a/hard")
        assert sorted(await sftp.listdir("a")) == [".", "..", "b", "f", "hard", "link"]
        long = {str(name.filename): str(name.longname) for name in await sftp.readdir("a")}
        assert long["f"].startswith("-rw-r-----") and long["b"].startswith("d") and long["link"].startswith("l")
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.rename("a/hard", "a/f")
        await sftp.posix_rename("a/hard", "a/f")
        await sftp.rename("a/f", "a/g")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat("a/f")
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.rmdir("a")
        await sftp.remove("a/link")
        await sftp.rmdir("a/b")
        await sftp.rmtree("a")
        assert not await sftp.exists("a")
        names = [f"n{number:03}" for number in range(250)]
        await sftp.mkdir("many")
        for name in names:
            (work(ssh) / "many" / name).touch()
        assert sorted(await sftp.listdir("many"))[2:] == names


async def nothing_is_there(ssh: World) -> None:
    """Of the host's files."""
    (ssh.folder / "secret").write_text("of the host")
    (work(ssh) / "link").symlink_to(ssh.folder / "secret")
    (work(ssh) / "root").symlink_to("/")
    async with client(ssh) as sftp:
        for path in (
            f"{ssh.folder}/secret",
            "link",
            f"root{ssh.folder}/secret",
            "../../../../../.." + f"{ssh.folder}/secret",
            "/etc/shadow",
            "/root/.ssh",
            "/proc/1/root/etc/shadow",
            "/run/docker.sock",
        ):
            with pytest.raises((asyncssh.SFTPNoSuchFile, asyncssh.SFTPPermissionDenied)):
                async with sftp.open(path, "rb"):
                    pass
        for path in ("/etc/x", "/usr/bin/x", "/opt/pitstop/bin/x", "/x"):
            with pytest.raises(asyncssh.SFTPError):
                async with sftp.open(path, "wb"):
                    pass
        assert sorted(await sftp.listdir("/home")) == [".", "..", "runner"]
    status, out = await copy(ssh, f"{JOB}@127.0.0.1:{ssh.folder}/secret", str(ssh.folder / "copy"))
    assert status == 1 and b"No such file" in out
    assert not (ssh.folder / "copy").exists()


@both
@in_world("namespaces")
async def test_nothing_of_the_host_is_there(ssh: World, server: str, use: Callable[[str], None]) -> None:
    use(server)
    await nothing_is_there(ssh)


@in_world("namespaces")
async def test_an_image_with_neither_says_what_to_do(ssh: World, use: Callable[[str], None]) -> None:
    use("none")
    status, out, err = await ssh.ssh("sftp", options=["-s"])
    assert (status, out) == (127, b"")
    assert b"neither an sftp-server nor python3" in err and b"openssh-sftp-server" in err
    status, said = await copy(ssh, f"{JOB}@127.0.0.1:x", str(ssh.folder / "copy"))
    assert status != 0 and b"neither an sftp-server nor python3" in said


@both
@in_world("namespaces")
async def test_a_client_that_goes_leaves_no_server(ssh: World, server: str, use: Callable[[str], None]) -> None:
    use(server)
    lost = await asyncio.create_subprocess_exec(
        *ssh.ssh_args("-s"), "sftp", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert lost.stdin is not None and lost.stdout is not None
    lost.stdin.write(b"\0\0\0\5\1\0\0\0\3")
    assert (await lost.stdout.readexactly(5))[4] == 2
    lost.kill()
    await lost.wait()
    await ssh.job.until("closed", "ada", "disconnect")
    status, out, _err = await ssh.ssh("ps -eo args | grep -c '[s]ftp'")
    assert (status, out) == (1, b"0\n")


@in_world("namespaces")
async def test_the_old_scp_protocol(ssh: World) -> None:
    (ssh.folder / "f").write_bytes(b"old\n" * 1000)
    there = f"{JOB}@127.0.0.1:"
    assert await copy(ssh, "-O", "-q", f"{ssh.folder}/f", f"{there}f") == (0, b"")
    assert await copy(ssh, "-O", "-q", f"{there}f", str(ssh.folder / "g")) == (0, b"")
    assert (ssh.folder / "g").read_bytes() == b"old\n" * 1000


@in_world("namespaces")
async def test_a_program_that_the_image_has_not_is_named_with_another_way(ssh: World) -> None:
    ssh.job.env = {**ssh.job.env, "PATH": "/opt/pitstop/bin"}
    (ssh.folder / "f").touch()
    status, said = await copy(ssh, "-O", f"{ssh.folder}/f", f"{JOB}@127.0.0.1:f")
    assert status != 0 and b"pitstop: this sandbox's image has no scp. Leave out -O" in said
    status, _out, err = await ssh.ssh("rsync --server .")
    assert status == 127 and b"pitstop: this sandbox's image has no rsync" in err
