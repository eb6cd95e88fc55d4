"""The output of one process, from its pipe into a bounded file."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CHUNK: Final = 64 * 1024
TURN: Final = 16
"""Chunks in one go; then the other processes have their turn."""


class Spool:
    """Copies a pipe to a file up to `limit` bytes, then says so there once and throws the rest away: the process
    never blocks on a full spool or a full disk."""

    def __init__(self, pipe: int, path: str, limit: int) -> None:
        os.set_blocking(pipe, False)
        self.pipe = pipe
        self.size = 0
        self.is_open = True
        self._limit = limit
        self._full = False
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def pump(self) -> bool:
        """Copy what is there. False when the last writer has closed its end."""
        for _ in range(TURN):
            try:
                data = os.read(self.pipe, CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._write(data)
        return True

    def drain(self) -> None:
        """Copy what is in the pipe now, and not what others go on to write."""
        if not self.is_open:
            return
        there = bytearray(4)
        fcntl.ioctl(self.pipe, termios.FIONREAD, there)
        (left,) = struct.unpack("i", there)
        while left > 0:
            try:
                data = os.read(self.pipe, min(left, CHUNK))
            except BlockingIOError:
                return
            if not data:
                return
            self._write(data)
            left -= len(data)

    def close(self) -> None:
        """The pipe and the file."""
        self.is_open = False
        os.close(self.pipe)
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        if self._full:
            return
        self._append(data[: self._limit - self.size])
        if self.size >= self._limit:
            self._full = True
            self._append(b"\n[pitstop: this output is longer than %d bytes; the rest is not kept]\n" % self._limit)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._file, view)
                self.size += written
                view = view[written:]
        except OSError:
            self._full = True
