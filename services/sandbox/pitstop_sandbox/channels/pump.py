"""Copies between a process's file descriptors and a channel, with backpressure both ways. Owns the descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

CHUNK: Final = 64 * 1024
"""Read at once, bytes: what a pipe holds."""
SHORT: Final = 1024
"""A read that gives less has emptied the pipe or terminal, bytes."""
STDIN_HIGH: Final = 64 * 1024
"""The client is held up when this much of its input waits for the process, bytes."""


class Output:
    """Reads a descriptor until its end and gives the bytes to `deliver`."""

    def __init__(self, fd: int, deliver: Callable[[bytes], None]) -> None:
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._deliver = deliver
        self._holds: set[str] = set()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    def hold(self, why: str) -> None:
        """Stop reading until every hold is released."""
        if not self._holds and not self.done.done():
            self._loop.remove_reader(self._fd)
        self._holds.add(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        if why in self._holds:
            self._holds.discard(why)
            if not self._holds and not self.done.done():
                self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Read no more; the descriptor is closed."""
        if not self.done.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.done.set_result(None)

    def _read(self) -> None:
        pieces: list[bytes] = []
        size, ended = 0, False
        while size < CHUNK:
            try:
                piece = os.read(self._fd, CHUNK - size)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # EIO: nobody has the other side of the terminal open
                ended = True
                break
            if not piece:
                ended = True
                break
            pieces.append(piece)
            size += len(piece)
            if len(piece) < SHORT:
                break
        if pieces:
            self._deliver(b"".join(pieces))
        if ended:
            self.close()


class Input:
    """Writes what is given to a descriptor as fast as it takes it. `choke` and `free` hold up the giver."""

    def __init__(self, fd: int, choke: Callable[[], None], free: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._choke = choke
        self._free = free
        self._waiting = bytearray()
        self._watching = self._choked = self._ending = self._closed = False

    @property
    def closed(self) -> bool:
        """Nothing is taken any more: it was ended, or the process reads no more."""
        return self._closed

    def write(self, data: bytes) -> None:
        """Take bytes. Dropped when the process reads no more."""
        if self._closed or self._ending:
            return
        if not self._waiting:
            data = self._at_once(data)
            if not data:
                return
        self._waiting += data
        if not self._watching:
            self._write()
        if len(self._waiting) > STDIN_HIGH and not self._choked:
            self._choked = True
            self._choke()

    def _at_once(self, data: bytes) -> bytes:
        """What is left of it."""
        try:
            return data[os.write(self._fd, data) :]
        except OSError:  # tried again, and judged, with the rest
            return data

    def end(self) -> None:
        """The giver has no more: close the descriptor after the last byte."""
        self._ending = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Drop what waits and let the descriptor go."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._watch(False)
        self._let_go(self._fd)
        self._unchoke()

    def _write(self) -> None:
        try:
            while self._waiting:
                count = os.write(self._fd, self._waiting[:CHUNK])
                del self._waiting[:count]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # the process closed its side
            self.close()
            return
        self._watch(bool(self._waiting))
        if not self._waiting and self._ending:
            self.close()
        elif len(self._waiting) <= STDIN_HIGH // 4:
            self._unchoke()

    def _let_go(self, fd: int) -> None:
        os.close(fd)

    def _watch(self, on: bool) -> None:
        if on and not self._watching:
            self._loop.add_writer(self._fd, self._write)
        elif self._watching and not on:
            self._loop.remove_writer(self._fd)
        self._watching = on

    def _unchoke(self) -> None:
        if self._choked:
            self._choked = False
            self._free()


class SocketInput(Input):
    """The same for a socket that is read elsewhere: its other end sees that no more is written."""

    def _let_go(self, fd: int) -> None:
        with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
