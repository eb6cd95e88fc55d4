"""The way of a spool into the log: read as it grows, batched, in order, and from the right line after a restart."""

from __future__ import annotations

import asyncio
import os
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pitstop_common.limits import LOG_FLUSH_SECONDS, MAX_LOG_CHUNK
from pitstop_sandbox.steps.lines import Lines

_READ: Final = 64 * 1024
_RECORD: Final = struct.Struct(">IIQ")

Send = Callable[[int, tuple[str, ...]], Awaitable[None]]
"""Stores lines; the first argument is the number of the first of them."""
Grown = Callable[[int], Awaitable[object]]
"""Returns when the spool is longer than so many bytes, or will not grow any more."""


class Progress:
    """How many lines of which try are stored. One small record, written over; a torn one counts for nothing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def get(self, step: int, tries: int) -> int:
        """Lines of this try that are stored."""
        data = os.pread(self._fd, _RECORD.size + 4, 0)
        body, crc = data[: _RECORD.size], data[_RECORD.size :]
        if len(data) < _RECORD.size + 4 or zlib.crc32(body).to_bytes(4, "big") != crc:
            return 0
        found = _RECORD.unpack(body)
        return int(found[2]) if found[:2] == (step, tries) else 0

    def set(self, step: int, tries: int, lines: int) -> None:
        """That many lines of this try are stored."""
        body = _RECORD.pack(step, tries, lines)
        os.pwrite(self._fd, body + zlib.crc32(body).to_bytes(4, "big"), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


class Pump:
    """Reads one spool to its end. `stored`: so many lines are in the log already and are only counted."""

    def __init__(self, spool: Path, lines: Lines, send: Send, grown: Grown, *, stored: int = 0) -> None:
        self._spool = spool
        self._lines = lines
        self._send = send
        self._grown = grown
        self._stored = stored
        self._count = 0
        self._first = 0
        self._batch: list[str] = []
        self._size = 0
        self._flushed = float("-inf")
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        """No more will be written: read what is there, and return."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def run(self) -> None:
        """Returns when `end` was called and every line is stored."""
        fd = os.open(self._spool, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            await self._read(fd)
        finally:
            os.close(fd)

    async def extra(self, lines: Sequence[str]) -> None:
        """Lines of the runner's own at the end of the step's output."""
        await self._add(list(lines))
        await self._flush()

    async def _read(self, fd: int) -> None:
        position = 0
        while True:
            ended = self._ended.done()
            data = os.read(fd, _READ)
            if data:
                position += len(data)
                await self._add(self._lines.feed(data))
                await asyncio.sleep(0)
                continue
            if ended:
                break
            left = self._flushed + LOG_FLUSH_SECONDS - time.monotonic()
            if self._batch and left <= 0:
                await self._flush()
            else:
                await self._news(position, left if self._batch else None)
        await self._add(self._lines.finish())
        await self._flush()

    async def _news(self, position: int, longest: float | None) -> None:
        grown: asyncio.Future[object] = asyncio.ensure_future(self._grown(position))
        either: set[asyncio.Future[Any]] = {grown, self._ended}
        try:
            await asyncio.wait(either, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()
            (found,) = await asyncio.gather(grown, return_exceptions=True)
        if isinstance(found, Exception) and not self._ended.done():
            # The sandbox is gone: whoever waits for the process says so, and calls `end`.
            await asyncio.wait({self._ended})

    async def _add(self, lines: list[str]) -> None:
        for line in lines:
            self._count += 1
            if self._count <= self._stored:
                continue
            size = len(line.encode()) + 1
            if self._batch and self._size + size > MAX_LOG_CHUNK:
                await self._flush()
            if not self._batch:
                self._first = self._count - 1
            self._batch.append(line)
            self._size += size
        if self._batch and time.monotonic() >= self._flushed + LOG_FLUSH_SECONDS:
            await self._flush()

    async def _flush(self) -> None:
        if self._batch:
            batch, self._batch, self._size = tuple(self._batch), [], 0
            await self._send(self._first, batch)
            self._flushed = time.monotonic()
