"""Sockets inside a sandbox, on every backend: what `-L`, `-R`, `-D` and agent forwarding stand on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.backend_kit import Machine, run, shell, soon, until

from pitstop_sandbox.backends.port import BackendError, Listener, Sandbox, Tcp, Unix


@pytest.fixture(params=["fake", "namespaces", "docker"])
def kind(request: pytest.FixtureRequest) -> str:
    made: str = request.param
    return made


@pytest.fixture(autouse=True)
async def nothing_stays_open(machine: Machine) -> AsyncIterator[None]:
    """Each test closes what it was given."""
    before = open_files()
    yield
    await machine.end()
    await until(lambda: open_files() <= before, "descriptors are left open")


real = pytest.mark.parametrize("kind", ["namespaces", "docker"], indirect=True)
"""The fake backend has no programs."""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def talk(sandbox: Sandbox, listener: Listener, to: Tcp | Unix) -> None:
    """Bytes and the end of a stream go both ways."""
    loop = asyncio.get_running_loop()
    dialled = socket.socket(fileno=await soon(sandbox.dial(to)))
    came = socket.socket(fileno=(await soon(listener.accept())).fd)
    with dialled, came:
        for one, other in ((dialled, came), (came, dialled)):
            one.setblocking(False)
            other.setblocking(False)
            await soon(loop.sock_sendall(one, b"hello"))
            assert await soon(loop.sock_recv(other, 100)) == b"hello"
        dialled.shutdown(socket.SHUT_WR)
        assert await soon(loop.sock_recv(came, 100)) == b""
        await soon(loop.sock_sendall(came, b"still"))
        assert await soon(loop.sock_recv(dialled, 100)) == b"still"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_tcp_inside(sandbox: Sandbox, kind: str, host: str) -> None:
    listener = await soon(sandbox.listen(Tcp("", 0)))
    assert listener.port
    try:
        await talk(sandbox, listener, Tcp(host, listener.port))
    except BackendError:
        # Docker gives no IPv6 to a container without a network.
        if host != "::1" or (kind != "docker" and Path("/proc/net/if_inet6").exists()):
            raise
    await listener.aclose()
    await listener.aclose()
    with pytest.raises(BackendError) as failed:
        await soon(sandbox.dial(Tcp("127.0.0.1", listener.port)))
    assert failed.value.code == "unreachable"


async def test_a_port_is_taken_once_and_free_again(sandbox: Sandbox) -> None:
    first = await soon(sandbox.listen(Tcp("0.0.0.0", 4321)))
    with pytest.raises(BackendError):
        await soon(sandbox.listen(Tcp("localhost", 4321)))
    waiting = asyncio.ensure_future(first.accept())
    await asyncio.sleep(0)
    await first.aclose()
    with pytest.raises(BackendError):
        await soon(waiting)
    again = await soon(sandbox.listen(Tcp("localhost", 4321)))
    assert again.port == 4321
    await again.aclose()


async def test_a_unix_socket_inside(sandbox: Sandbox) -> None:
    at = Unix("/tmp/a/b.sock")
    listener = await soon(sandbox.listen(at, folder=True))
    await talk(sandbox, listener, at)
    await listener.aclose()
    with pytest.raises(BackendError):
        await soon(sandbox.dial(at))
    again = await soon(sandbox.listen(at, folder=True))
    await again.aclose()


@pytest.mark.parametrize("to", [Unix("relative"), Tcp("no-such-host.invalid", 80), Tcp("192.0.2.1", 80)])
async def test_what_cannot_be_reached_says_so(sandbox: Sandbox, to: Tcp | Unix) -> None:
    with pytest.raises(BackendError) as failed:
        await soon(sandbox.dial(to))
    assert failed.value.code == "unreachable"
    assert str(failed.value)


async def test_nothing_of_the_host_is_reached(sandbox: Sandbox, tmp_path: Path) -> None:
    name = f"\0pitstop-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        unix.bind(str(tmp_path / "s"))
        abstract.bind(name)
        for sock in (tcp, unix, abstract):
            sock.listen()
            sock.setblocking(False)
        places: list[Tcp | Unix] = [Tcp("127.0.0.1", tcp.getsockname()[1]), Tcp("localhost", tcp.getsockname()[1]),
                  Tcp("0.0.0.0", tcp.getsockname()[1]), Tcp(socket.gethostname(), tcp.getsockname()[1]),
                  Unix(str(tmp_path / "s")), Unix(name), Unix(f"/{name}"), Unix(f"/proc/{os.getpid()}/cwd/s"),
                  Unix("/run/docker.sock"), Unix("/var/run/docker.sock")]  # fmt: skip
        for place in places:
            with pytest.raises(BackendError):
                await soon(sandbox.dial(place))
        for sock in (tcp, unix, abstract):
            with pytest.raises(BlockingIOError):
                sock.accept()


async def test_no_listener_is_on_the_host(sandbox: Sandbox, tmp_path: Path) -> None:
    listener = await soon(sandbox.listen(Tcp("0.0.0.0", 0)))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port)).close()
    await listener.aclose()
    path = tmp_path / "here.sock"
    try:
        await (await soon(sandbox.listen(Unix(str(path))))).aclose()
    except BackendError:
        return
    assert not path.exists()


@real
async def test_programs_inside_meet_it_as_their_own(sandbox: Sandbox) -> None:
    listener = await soon(sandbox.listen(Tcp("localhost", 0)))
    text = f"exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{listener.port}; echo inside >&3; cat <&3'"
    process = await sandbox.spawn(shell(text))
    came = await soon(listener.accept())
    with socket.socket(fileno=came.fd) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        assert await soon(loop.sock_recv(sock, 100)) == b"inside\n"
        await soon(loop.sock_sendall(sock, b"from outside\n"))
    assert (await soon(process.wait())).code == 0
    assert process.spool is not None and process.spool.read_text() == "from outside\n"
    assert (came.host, came.port > 0) == ("127.0.0.1", True)
    await listener.aclose()


@real
async def test_a_unix_socket_is_its_users_alone_and_goes_with_its_folder(sandbox: Sandbox) -> None:
    listener = await soon(sandbox.listen(Unix("/tmp/agent-1/s"), folder=True))
    look = "stat -c '%U %a %n' /tmp/agent-1 /tmp/agent-1/s"
    assert await run(sandbox, look, name="before") == (0, "runner 700 /tmp/agent-1\nrunner 600 /tmp/agent-1/s\n")
    await listener.aclose()
    assert await run(sandbox, "ls -A /tmp", name="after") == (0, "")


@real
async def test_what_makes_sockets_is_not_seen_inside_and_has_no_privilege(sandbox: Sandbox, kind: str) -> None:
    if kind != "docker":  # whose containers let everybody have every port of their own
        with pytest.raises(BackendError, match="ermission denied"):
            await soon(sandbox.listen(Tcp("localhost", 80)))
    with pytest.raises(BackendError, match=r"ermission denied|[Rr]ead-only"):
        await soon(sandbox.listen(Unix("/usr/x.sock")))
    for path in ("/etc/passwd", "/run/pitstop"):
        with pytest.raises(BackendError):
            await soon(sandbox.dial(Unix(path)))


async def test_many_at_once(sandbox: Sandbox) -> None:
    listener = await soon(sandbox.listen(Tcp("localhost", 0)))
    made = await soon(asyncio.gather(*(sandbox.dial(Tcp("127.0.0.1", listener.port)) for _ in range(40))))
    assert len(set(made)) == 40
    for fd in made:
        os.close(fd)
    await listener.aclose()
