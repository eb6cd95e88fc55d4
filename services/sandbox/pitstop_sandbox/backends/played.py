"""The programs of the fake backend: coroutines that play processes, on real pipes, terminals and spool files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

from pitstop_sandbox.backends.port import Spawn

Program = Callable[["Running"], Awaitable[int]]
"""A process: gets its surroundings, returns its exit code."""
Resolve = Callable[[Spawn], Program | None]
"""What a `Spawn` starts; None: there is no such program."""


async def succeed(_running: Running) -> int:
    """A program that does nothing, well."""
    return 0


def printing(text: str, *, code: int = 0, seconds: float = 0.0) -> Program:
    """A program that prints, takes its time, and ends with `code`."""

    async def program(running: Running) -> int:
        running.write(text.encode())
        await asyncio.sleep(seconds)
        return code

    return program


class Running:
    """A process as its program sees it."""

    def __init__(self, request: Spawn, folder: Path, fds: tuple[int, int, int], told: Callable[[], None]) -> None:
        self.request = request
        self.folder = folder
        """The job's folder on the host: `work`, `job` and `bin` are what a sandbox would show."""
        self.signals: asyncio.Queue[int] = asyncio.Queue()
        self.caught: set[int] = set()
        """Signals that go to `signals` instead of ending the process."""
        self.background: list[asyncio.Task[int]] = []
        self.cpu = 0.0
        """CPU time that it has used, seconds: for the program to say."""
        self._fds = fds
        self._told = told

    async def read(self, size: int = 65536) -> bytes:
        """From stdin; empty at its end."""
        loop = asyncio.get_running_loop()
        stdin = self._fds[0]
        while True:
            try:
                return os.read(stdin, size) if stdin >= 0 else b""
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(stdin, ready.set_result, None)
                ready.add_done_callback(lambda _: loop.remove_reader(stdin))
                await ready

    def write(self, data: bytes) -> None:
        """To stdout."""
        _write_all(self._fds[1], data)
        self._told()

    def error(self, data: bytes) -> None:
        """To stderr."""
        _write_all(self._fds[2], data)
        self._told()

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal."""
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(self._fds[0], termios.TIOCGWINSZ, bytes(8)))
        return columns, rows

    def start(self, program: Program) -> None:
        """A background process, which outlives this one."""
        self.background.append(asyncio.ensure_future(program(self)))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def set_size(master: int, columns: int, rows: int) -> None:
    """Of a terminal."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
