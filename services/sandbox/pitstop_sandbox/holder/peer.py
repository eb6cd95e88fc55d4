"""A connection of a host process to its holder, as the holder sees it."""

from __future__ import annotations

import os
import socket
import struct

from pitstop_sandbox.holder.frames import Decoder, Message, encode
from pitstop_sandbox.holder.inside import send_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CHUNK: Final = 64 * 1024
MAX_WAITING: Final = 1024 * 1024
"""Bytes. A host process that reads nothing gets no more events of growing spools, and is asked for nothing more."""


class Peer:
    """Never blocks: what the host process does not take waits here."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._decoder = Decoder()
        self._out: list[tuple[memoryview, list[int]]] = []

    @property
    def waiting(self) -> int:
        """Bytes not yet taken."""
        return sum(len(data) for data, _ in self._out)

    def receive(self) -> list[Message] | None:
        """What was asked. None at the end of the connection. Raises ValueError when it is not our protocol."""
        try:
            data = self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        return self._decoder.feed(data) if data else None

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Queue a message; its descriptors are closed here once they are sent."""
        self._out.append((memoryview(encode({**message, "fds": len(fds or [])})), fds or []))
        self.flush()

    def flush(self) -> None:
        """Send what can be sent now."""
        while self._out:
            data, fds = self._out[0]
            try:
                sent = send_fds(self.sock, bytes(data[:CHUNK]), fds)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._forget()
                return
            _close_all(fds)
            if sent == len(data):
                self._out.pop(0)
            else:
                self._out[0] = (data[sent:], [])

    def close(self) -> None:
        """End the connection."""
        self._forget()
        self.sock.close()

    def _forget(self) -> None:
        for _, fds in self._out:
            _close_all(fds)
        self._out.clear()


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def may_connect(sock: socket.socket, owner: int) -> bool:
    """Only root, and the user the holder was started by."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, owner)
