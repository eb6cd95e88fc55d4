"""Reading the log of a run from the stream: from its first line, and on while it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TextIO

import msgspec

from pitstop_cli.client import Client
from pitstop_cli.console import harmless
from pitstop_cli.render import LogView
from pitstop_common.messages import LogChunk, decode_chunk
from pitstop_common.pull import Delivery, Pull, reader
from pitstop_common.streams import LOGS
from pitstop_common.subjects import logs

_LATE_SECONDS: Final = 3.0
"""The end of a log that never comes (its host was lost) is waited for this long after the run has ended."""
_BATCH: Final = 256


class Follower:
    """The log of a run, or of one job of it (`job`, an id)."""

    def __init__(self, client: Client, run: str, job: str = "") -> None:
        self._bus = client.bus
        self._subject = logs(client.target.org, run, job or "*")
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

    async def stored(self) -> AsyncIterator[LogChunk]:
        """What is stored now, in order."""
        state = (await self._bus.api(f"STREAM.INFO.{LOGS}", {"subjects_filter": self._subject}))["state"]
        left = sum((state.get("subjects") or {}).values())
        pull = Pull(self._bus, LOGS, reader(self._subject), batch=_BATCH)
        try:
            while left:
                for delivery in await pull.next():
                    left = delivery.pending
                    if (chunk := _chunk(delivery)) is not None:
                        yield chunk
        finally:
            await pull.close()

    async def live(self) -> AsyncIterator[LogChunk]:
        """What is stored and what comes, until the log is complete (see `finish`)."""
        pull = Pull(self._bus, LOGS, reader(self._subject), batch=_BATCH)
        try:
            while True:
                batch = await pull.next(0.2)
                for delivery in batch:
                    if (chunk := _chunk(delivery)) is not None:
                        if chunk.kind == "end":
                            self._ended.add((chunk.job, chunk.attempt))
                        yield chunk
                if not batch and self._complete():
                    return
        finally:
            await pull.close()

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


def _chunk(delivery: Delivery) -> LogChunk | None:
    try:
        return decode_chunk(delivery.data)
    except msgspec.MsgspecError:
        return None
