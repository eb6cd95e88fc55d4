"""Forwards and agents through real clients, into real sandboxes: everything is opened inside, nothing on the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from tests.bait import bait
from tests.screens import screen
from tests.ssh_support import JOB, World, in_world
from tests.whole_system import free_port

from pitstop_common.roles import Services
from pitstop_sandbox.backends.port import Listener, Tcp, Unix
from pitstop_sandbox.channels.forwards import MAX_LISTENERS

BACKENDS = ["fake", "namespaces"]


@contextlib.asynccontextmanager
async def connected(ssh: World) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None,
        agent_path=None,
    ) as client:  # fmt: skip
        yield client


@contextlib.asynccontextmanager
async def client(ssh: World, *options: str, command: str = "echo up; cat") -> AsyncIterator[asyncio.subprocess.Process]:
    """OpenSSH for the length of a block, once its command runs; it ends well."""
    made = await asyncio.create_subprocess_exec(
        *ssh.ssh_args(*options, "-o", "ExitOnForwardFailure=yes"), command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert made.stdout is not None and made.stderr is not None
    try:
        assert await made.stdout.readline() == b"up\n", await made.stderr.read()
        yield made
        out, err = await made.communicate(b"still here")
        assert (made.returncode, out) == (0, b"still here"), err
    finally:
        if made.returncode is None:
            made.kill()
            await made.wait()


@contextlib.asynccontextmanager
async def served(ssh: World, at: Tcp | Unix, hello: bytes = b"hello from inside\n") -> AsyncIterator[Listener]:
    """A server inside the sandbox that speaks first, then gives everything back, then says goodbye."""
    listener = await ssh.job.listen(at)
    tasks = []

    async def talk(fd: int) -> None:
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd))
        writer.write(hello)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"goodbye\n")
        writer.close()
        await writer.wait_closed()

    async def accept() -> None:
        while True:
            tasks.append(asyncio.ensure_future(talk((await listener.accept()).fd)))

    accepting = asyncio.ensure_future(accept())
    try:
        yield listener
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, *tasks, return_exceptions=True)
        await listener.aclose()


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """Send, end, and read what comes until the end."""

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(60):
        sending = asyncio.ensure_future(send())
        got = await reader.read()
        await sending
    writer.close()
    return got


async def nobody(ssh: World) -> None:
    """Until every connection has ended here too: a client is gone before."""
    async with asyncio.timeout(30):
        while ssh.host.sessions:
            await asyncio.sleep(0.01)


WHOLE = b"hello from inside\nping\ngoodbye\n"


@in_world("namespaces")
async def test_local_forwards_lose_no_byte_and_no_half_close(ssh: World) -> None:
    local, big = free_port(), os.urandom(3_000_000)
    async with served(ssh, Tcp("", 0)) as there, client(ssh, "-L", f"{local}:localhost:{there.port}"):
        for _ in range(20):  # a server that speaks first: nothing of what it says is lost
            assert await say(*await asyncio.open_connection("127.0.0.1", local), b"ping\n") == WHOLE
        got = await say(*await asyncio.open_connection("127.0.0.1", local), big)
        assert got == b"hello from inside\n" + big + b"goodbye\n"
    assert ("used", "dial", f"localhost:{there.port}") in ssh.job.said
    assert ssh.job.bytes > 2 * len(big)


@in_world("namespaces")
async def test_stdio_and_socks(ssh: World) -> None:
    async with served(ssh, Tcp("", 0)) as there:
        status, out, err = await ssh.ssh(options=["-W", f"127.0.0.1:{there.port}"], stdin=b"ping\n")
        assert (status, out, err) == (0, WHOLE, b"")
        local = free_port()
        async with client(ssh, "-D", str(local)):
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00\x03\x09localhost" + there.port.to_bytes(2, "big"))
            assert (await reader.readexactly(10))[1] == 0
            assert await say(reader, writer, b"ping\n") == WHOLE


@in_world("namespaces")
async def test_remote_forwards(ssh: World) -> None:
    here, there = free_port(), 45454
    came = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read())
        writer.write(b"from home")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", here):
        knock = f": </dev/tcp/127.0.0.1/{there}"
        ask = "python3 -c \"import socket; s = socket.create_connection(('localhost', {})); s.sendall(b'ping'); "
        ask += 's.shutdown(1); print(s.recv(100).decode())"'
        async with client(ssh, "-R", f"{there}:127.0.0.1:{here}"):
            status, out, err = await ssh.ssh(ask.format(there))
            assert (status, out, err) == (0, b"from home\n", b"")
            assert (await ssh.ssh(knock))[0] == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", there)
        assert came[0] == b"ping"
        await nobody(ssh)
        status, _out, err = await ssh.ssh(knock)
        assert status != 0 and b"refused" in err.lower(), "the listener is gone with its connection"
        async with connected(ssh) as person, await person.forward_remote_port("", 0, "127.0.0.1", here) as made:
            status, out, _err = await ssh.ssh(ask.format(made.get_port()))
            assert (status, out) == (0, b"from home\n")


@in_world("namespaces")
async def test_unix_sockets_both_ways(ssh: World) -> None:
    here, inside = ssh.folder / "here.sock", "/tmp/inside.sock"
    async with served(ssh, Unix("/tmp/server.sock")), client(ssh, "-L", f"{here}:/tmp/server.sock"):
        assert await say(*await asyncio.open_unix_connection(here), b"ping\n") == WHOLE
    here.unlink()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"from home")
        writer.close()

    async with await asyncio.start_unix_server(talk, here), client(ssh, "-R", f"{inside}:{here}"):
        ask = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/tmp/inside.sock'); print(s.recv(100))"
        assert (await ssh.ssh(f'stat -c "%U %a" {inside}; python3 -c "{ask}"'))[1] == b"runner 600\nb'from home'\n"
    await nobody(ssh)
    assert (await ssh.ssh("ls -A /tmp"))[1] == b""
    assert not Path(inside).exists()


@contextlib.asynccontextmanager
async def agent(ssh: World) -> AsyncIterator[str]:
    """The client's own agent, with its key."""
    path = ssh.folder / "agent.sock"
    made = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(path), stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while not path.exists():
                await asyncio.sleep(0.01)
        added = await asyncio.create_subprocess_exec(
            "ssh-add", "-q", str(ssh.folder / "ada"), env={**os.environ, "SSH_AUTH_SOCK": str(path)}
        )
        assert await added.wait() == 0
        yield str(path)
    finally:
        made.terminate()
        await made.wait()


@in_world("namespaces")
async def test_an_agent_is_reached_by_its_user_through_a_socket_inside(ssh: World) -> None:
    async with agent(ssh) as path:
        options = ["-A", "-o", f"IdentityAgent={path}"]
        look = 'ssh-add -l; stat -c "%U %a" "$SSH_AUTH_SOCK" "${SSH_AUTH_SOCK%/*}"; echo $SSH_AUTH_SOCK'
        status, out, err = await ssh.ssh(look, options=options)
        assert (status, err) == (0, b"")
        listed, socket_, folder, where = out.decode().splitlines()
        assert listed.endswith("(ED25519)")
        assert (socket_, folder) == ("runner 600", "runner 700")
        assert not Path(where).exists(), "it is not on the host"
        await nobody(ssh)
        assert (await ssh.ssh("ls -A /tmp; echo ${SSH_AUTH_SOCK-none}"))[1] == b"none\n"
        sign = "for i in 1 2 3 4 5; do ssh-add -l & done; wait"
        assert (await ssh.ssh(sign, options=options))[1].count(b"(ED25519)") == 5, "several at once"
    assert not list(Path("/tmp").glob("asyncssh-*"))


async def nothing_is_reached(ssh: World) -> None:
    """Of the host, by any kind of forward."""
    path = ssh.folder / "docker.sock"
    with bait() as tcp, bait(path) as unix:
        for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", socket.gethostname()):
            status, out, err = await ssh.ssh(options=["-W", f"[{host}]:{tcp.port}"])
            assert (status, out) == (255, b"")
            assert b"pitstop: " in err and b"open failed: connect failed" in err, err
        async with connected(ssh) as person:
            nats = (ssh.at.port, 4222)
            for port in nats:
                with pytest.raises(asyncssh.ChannelOpenError, match=r"pitstop: 127\.0\.0\.1"):
                    await person.open_connection("127.0.0.1", port)
            for place in (str(path), "/var/run/docker.sock", "/run/docker.sock", f"/proc/{os.getpid()}/cwd/x",
                          f"\0{path}", "relative"):  # fmt: skip
                with pytest.raises(asyncssh.ChannelOpenError, match="pitstop: "):
                    await person.open_unix_connection(place)
            with pytest.raises(asyncssh.ChannelOpenError, match="not supported"):
                await person.open_tun()
            made = ssh.folder / "new.sock"
            with contextlib.suppress(asyncssh.ChannelListenError):
                (await person.start_unix_server(lambda *_: None, str(made))).close()
            assert not made.exists()
            port = free_port()
            listener = await person.start_server(lambda *_: None, "0.0.0.0", port)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            listener.close()
        assert not tcp.touched
        assert not unix.touched


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_of_the_host_is_reached(backend: str, tmp_path: Path) -> None:
    in_world(backend)(nothing_is_reached)(tmp_path)


OFF = Services(sftp=False, forwarding=False, agent=False, exec=False)


@in_world("namespaces", services=OFF)
async def test_what_a_project_switches_off_says_so(ssh: World) -> None:
    told = "switched off for the project web. Its admins switch it on with `{} = true` in [projects.web]"
    with pytest.raises(AssertionError):
        async with client(ssh):
            pass
    for options, command, service in (([], "true", "exec"), (["-s"], "sftp", "sftp")):
        status, out, err = await ssh.ssh(command, options=options)
        assert (status, out) == (126, b"")
        assert told.format(service).encode() in err
    status, _out, err = await ssh.ssh(options=["-W", "127.0.0.1:80"])
    assert status == 255 and told.format("forwarding").encode() in err
    status, _out, err = await ssh.ssh("true", options=["-R", "4000:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes"])
    assert status == 255 and b"remote port forwarding failed" in err
    async with agent(ssh) as path:
        with screen(ssh, options=["-A", "-o", f"IdentityAgent={path}", "-R", "4000:127.0.0.1:22"]) as person:
            await person.until("forwarding (-L, -R, -D, -W and unix sockets) is switched off")
            await person.until("agent forwarding (-A) is switched off for the project web")
            person.type("echo ${SSH_AUTH_SOCK-no ag''ent} here; exit\n")
            await person.until("no agent here")
            await person.ended()


@in_world("namespaces", services=Services(forwarding=False, agent=False))
async def test_a_command_runs_without_the_forwards_it_came_with(ssh: World) -> None:
    status, out, err = await ssh.ssh("echo fine; exit 3", options=["-R", "4000:127.0.0.1:22"])
    assert (status, out) == (3, b"fine\n")
    assert b"pitstop: forwarding (-L, -R, -D, -W and unix sockets) is switched off for the project web." in err
    assert await ssh.ssh("echo fine") == (0, b"fine\n", b""), "who asks for none reads nothing"


@in_world("namespaces", services=Services(terminal=False))
async def test_without_terminals_commands_still_work(ssh: World) -> None:
    assert await ssh.ssh("echo fine") == (0, b"fine\n", b"")
    status, _out, err = await ssh.ssh(stdin=b"echo no\n")
    assert status == 126 and b"a terminal (ssh without a command) is switched off" in err


@in_world("namespaces")
async def test_listeners_are_bounded_and_a_wrong_cancel_harms_nobody(ssh: World) -> None:
    async with connected(ssh) as person:
        made = [await person.start_server(lambda *_: None, "", 0) for _ in range(MAX_LISTENERS)]
        with pytest.raises(asyncssh.ChannelListenError):
            await person.start_server(lambda *_: None, "", 0)
        with pytest.raises(asyncssh.ChannelListenError):
            await person.start_server(lambda *_: None, "", 80)
        status, _out, err = await ssh.ssh("true", options=["-R", "80:127.0.0.1:22"])
        assert status == 0
        assert b"pitstop: cannot listen on localhost:80: Permission denied; take a port of 1024 or more" in err
        made.pop().close()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(asyncssh.ChannelListenError):
                    made.append(await person.start_server(lambda *_: None, "", 0))
                    break
        for listener in made:
            listener.close()
        assert (await person.run("echo still here")).stdout == "still here\n"


@in_world("namespaces")
async def test_a_client_that_reads_nothing_is_sent_nothing_more(ssh: World) -> None:
    listener = await ssh.job.listen(Tcp("", 0))
    async with connected(ssh) as person:
        reader, writer = await person.open_connection("127.0.0.1", listener.port)
        with socket.socket(fileno=(await listener.accept()).fd) as sock:
            sock.setblocking(False)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 * 2**20:  # until nobody takes any more
                    async with asyncio.timeout(3):
                        await asyncio.get_running_loop().sock_sendall(sock, bytes(2**16))
                    sent += 2**16
            assert sent < 32 * 2**20
            assert (await person.run("echo others go on")).stdout == "others go on\n"
            sock.shutdown(socket.SHUT_WR)
            assert len(await reader.read()) >= sent
        writer.close()
    await listener.aclose()


@in_world("namespaces")
async def test_a_lost_client_leaves_nothing_inside(ssh: World) -> None:
    async with agent(ssh) as path, served(ssh, Tcp("", 0)) as there:
        local = free_port()
        flags = ["-A", "-o", f"IdentityAgent={path}", "-L", f"{local}:127.0.0.1:{there.port}", "-R", "4444:127.0.0.1:1"]
        lost = await asyncio.create_subprocess_exec(
            *ssh.ssh_args(*flags), "echo up; exec sleep 600", stdout=asyncio.subprocess.PIPE
        )
        assert lost.stdout is not None
        assert await lost.stdout.readline() == b"up\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        assert await reader.readline() == b"hello from inside\n"
        lost.kill()
        await lost.wait()
        writer.close()
        await ssh.job.until("closed", "ada", "disconnect")
        status, out, _err = await ssh.ssh("ls -A /tmp; pgrep -x sleep; : </dev/tcp/127.0.0.1/4444")
        assert (status, out) == (1, b"")
