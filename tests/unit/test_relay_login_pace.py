"""A login is not held up: OpenSSH's client sends its next small packet only when the one before is acknowledged."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Final

import asyncssh
import uvloop

from pitstop_relay.host_keys import HostKeys
from pitstop_relay.transport import Transport, options

_TRIES: Final = 5
_PUT_OFF: Final = 0.04
"""So long Linux waits at least for an answer that it could send along, seconds."""


class _Nobody:
    """A guest who is not let in."""

    takes_passwords = True

    async def password(self, job: str, password: str) -> bool:
        return False

    async def signed(self, _message: bytes, _signature: bytes, _key: bytes) -> bool:
        return False

    def entered(self) -> None:
        raise AssertionError("nobody logs in")

    def up(self, _message: bytes) -> None:
        raise AssertionError("nobody logs in")

    def full(self) -> None:
        pass

    def free(self) -> None:
        pass

    def gone(self, _error: Exception | None) -> None:
        pass


def _unacknowledged(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    return int(struct.unpack_from("=I", info, 24)[0])


async def _taken(port: int) -> float:
    """From a small packet until it is acknowledged, seconds."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, b"SSH-2.0-Test\r\n")
        seen = b""
        while b"curve25519-sha256" not in seen:
            seen += await loop.sock_recv(sock, 4096)
        while _unacknowledged(sock):
            await asyncio.sleep(0)
        await loop.sock_sendall(sock, b"\0\0\4\0\6")
        begun = time.perf_counter()
        while _unacknowledged(sock):
            await asyncio.sleep(0)
        return time.perf_counter() - begun


def test_what_a_client_sends_before_it_is_let_in_is_acknowledged_at_once() -> None:
    async def quickest() -> float:
        chosen = options(HostKeys(asyncssh.generate_private_key("ssh-ed25519")), 60)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Transport(chosen, lambda _made: _Nobody(), 1), "127.0.0.1", 0)
        try:
            return min([await _taken(server.sockets[0].getsockname()[1]) for _ in range(_TRIES)])
        finally:
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(quickest()) < _PUT_OFF / 2
