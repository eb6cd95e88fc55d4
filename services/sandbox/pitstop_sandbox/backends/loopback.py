"""The network of a fake sandbox: what listens there is met there, and nothing of the host is."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from pitstop_sandbox.backends.port import Accepted, BackendError, Tcp, Unix

_OWN: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_FIRST_FREE: Final = 32768


class Loopback:
    """Ports and paths of one sandbox."""

    def __init__(self) -> None:
        self._listeners: dict[int | str, FakeListener] = {}

    def dial(self, to: Tcp | Unix) -> int:
        """A connected socket. Raises BackendError `unreachable`."""
        place = _place(to)
        if isinstance(to, Tcp) and to.host not in _OWN:
            raise BackendError("unreachable", "there is no network here")
        if place not in self._listeners:
            raise BackendError("unreachable", "nobody listens there")
        ours, theirs = socket.socketpair()
        self._listeners[place].came(theirs.detach())
        return ours.detach()

    def listen(self, at: Tcp | Unix) -> FakeListener:
        """Raises BackendError `unreachable` when the place is taken."""
        place = _place(at)
        if place == 0:
            place = next(port for port in range(_FIRST_FREE, 65536) if port not in self._listeners)
        if place in self._listeners:
            raise BackendError("unreachable", "somebody listens there already")
        made = self._listeners[place] = FakeListener(self._listeners, place)
        return made

    async def aclose(self) -> None:
        """End every listener."""
        for listener in list(self._listeners.values()):
            await listener.aclose()


class FakeListener:
    """See `Listener`."""

    def __init__(self, table: dict[int | str, FakeListener], place: int | str) -> None:
        self._table = table
        self._place = place
        self._arrived: asyncio.Queue[int | None] = asyncio.Queue()

    @property
    def port(self) -> int:
        """See `Listener`."""
        return self._place if isinstance(self._place, int) else 0

    def came(self, fd: int) -> None:
        """A connection."""
        self._arrived.put_nowait(fd)

    async def accept(self) -> Accepted:
        """See `Listener`."""
        fd = await self._arrived.get()
        if fd is None:
            self._arrived.put_nowait(None)
            raise BackendError("unreachable", "this listener is closed")
        return Accepted(fd, *(("127.0.0.1", 1) if self.port else ()))

    async def aclose(self) -> None:
        """See `Listener`."""
        if self._table.get(self._place) is not self:
            return
        del self._table[self._place]
        while not self._arrived.empty():
            if fd := self._arrived.get_nowait():
                os.close(fd)
        self._arrived.put_nowait(None)


def _place(address: Tcp | Unix) -> int | str:
    if isinstance(address, Tcp):
        return address.port
    if not address.path.startswith("/"):
        raise BackendError("unreachable", f"{address.path!r} is not an absolute path")
    return address.path
