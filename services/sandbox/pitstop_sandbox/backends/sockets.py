"""Listening sockets of a sandbox, held by the host process: what comes in never touches a network of the host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence

from pitstop_sandbox.backends.port import Accepted, BackendError


class SocketListener:
    """See `Listener`. Owns the descriptors; `removed` takes away what is left inside."""

    def __init__(self, port: int, fds: Sequence[int], removed: Callable[[], Awaitable[None]]) -> None:
        self._port = port
        self._sockets = [socket.socket(fileno=fd) for fd in fds]
        self._removed = removed
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None
        for each in self._sockets:
            each.setblocking(False)

    @property
    def port(self) -> int:
        """See `Listener`."""
        return self._port

    async def accept(self) -> Accepted:
        """See `Listener`. One at a time."""
        while not self._closed:
            for each in self._sockets:
                try:
                    made, peer = each.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    continue
                except OSError as error:
                    raise BackendError("unreachable", str(error)) from None
                host, port = peer[:2] if isinstance(peer, tuple) else ("", 0)
                return Accepted(made.detach(), host, port)
            await self._readable()
        raise BackendError("unreachable", "this listener is closed")

    async def aclose(self) -> None:
        """See `Listener`."""
        if self._closed:
            return
        self._closed = True
        if self._waiting is not None:
            _wake(self._waiting)
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each.fileno())
            each.close()
        with contextlib.suppress(BackendError):
            await self._removed()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        numbers = [each.fileno() for each in self._sockets]
        for number in numbers:
            loop.add_reader(number, _wake, waiting)
        try:
            await waiting
        finally:
            for number in () if self._closed else numbers:
                loop.remove_reader(number)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
