"""Listeners of this machine that nobody in a sandbox must reach."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


class Bait:
    """A listener of this host that nobody must reach."""

    def __init__(self, sock: socket.socket) -> None:
        sock.listen()
        sock.setblocking(False)
        self.sock = sock

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

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
