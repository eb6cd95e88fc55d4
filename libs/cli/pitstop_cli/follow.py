"""Reading the log of a run: from its first line, and on while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TextIO

import msgspec

from pitstop_cli.client import Client
from pitstop_cli.console import harmless
from pitstop_cli.render import LogView
from pitstop_common.messages import LogChunk
from pitstop_common.passes import LogsReply

_LATE_SECONDS: Final = 3.0
"""The end of a log that never comes (its host was lost) is waited for this long after the run has ended."""
_WAIT_SECONDS: Final = 2.0
"""A request waits so long for output; it comes at once."""
_TAIL_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 30.0
"""A scheduler or a server that was killed is back sooner."""


class Follower:
    """The log of a run, or of one job of it (`job`, an id)."""

    def __init__(self, client: Client, run: str, job: str = "") -> None:
        self._client, self._run, self._job, self._after = client, run, job, 0
        self._finished = asyncio.Event()
        self._ended: set[tuple[str, int]] = set()
        self._expected: set[tuple[str, int]] | None = None
        self._finished_at = 0.0
        self.free = asyncio.Event()
        """Cleared while a shell has the terminal."""
        self.free.set()

    def finish(self, attempts: Iterable[tuple[str, int]]) -> None:
        """The run has ended: read on to the end of the logs of these (job, attempt), and no further."""
        if self._expected is None:
            self._finished_at = asyncio.get_running_loop().time()
        self._expected = {(job, attempt) for job, attempt in attempts if attempt}
        self._finished.set()

    async def stored(self) -> AsyncIterator[LogChunk]:
        """What is stored now, in order."""
        pending = 1
        while pending:
            reply = await self._read(0)
            pending = reply.pending
            for chunk in reply.chunks:
                yield chunk

    async def live(self) -> AsyncIterator[LogChunk]:
        """What is stored and what comes, until the log is complete (see `finish`)."""
        while True:
            reply = await self._next()
            for chunk in reply.chunks:
                if chunk.kind == "end":
                    self._ended.add((chunk.job, chunk.attempt))
                yield chunk
            if not reply.chunks and self._complete():
                return

    async def _next(self) -> LogsReply:
        """What comes next. Empty where nothing came for a while, or when the run ends."""
        reading = asyncio.create_task(self._read(_TAIL_SECONDS if self._finished.is_set() else _WAIT_SECONDS))
        finished = asyncio.create_task(self._finished.wait())
        try:
            await asyncio.wait({reading} if self._finished.is_set() else {reading, finished},
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            return reading.result() if reading.done() else LogsReply(chunks=(), after=self._after, pending=0)
        finally:
            for task in (reading, finished):
                task.cancel()
            await asyncio.gather(reading, finished, return_exceptions=True)

    async def _read(self, wait: float) -> LogsReply:
        body = {"run": self._run, "job": self._job, "after": self._after, "wait": wait}
        reply = msgspec.convert(await self._client.call("logs", body, timeout=_PATIENCE_SECONDS), LogsReply)
        self._after = reply.after
        return reply

    async def show(self, view: LogView, stream: TextIO, *, live: bool = True) -> None:
        """Print the log. What comes while a shell has the terminal is printed after it."""
        async for chunk in self.live() if live else self.stored():
            await self.free.wait()
            for line in view.feed(chunk):
                print(harmless(line) if stream.isatty() else line, file=stream)
            stream.flush()

    def _complete(self) -> bool:
        if self._expected is None:
            return False
        late = asyncio.get_running_loop().time() - self._finished_at > _LATE_SECONDS
        return late or self._expected <= self._ended
