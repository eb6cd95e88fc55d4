"""A service as a child process that says in a file when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

_POLL: Final = 0.01


class ReadyProcess:
    """One life after the other. `ready`: what it said when it was ready, empty before; `news` is called each time that
    it says something. `stopping`: once set, a life that begins is told to end at once."""

    def __init__(self, ready_file: Path, news: Callable[[], None]) -> None:
        self.ready: dict[str, Any] = {}
        self._ready_file = ready_file
        self._say_ready = news
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    def send(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(number)

    async def _live(self, start: Callable[[], Awaitable[Process]]) -> int:
        """Its exit status, once it has ended."""
        self._ready_file.unlink(missing_ok=True)
        self._process = await start()
        if self._stopping.is_set():
            self.send(signal.SIGTERM)
        watch = asyncio.create_task(self._await_ready())
        try:
            return await self._process.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _await_ready(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.ready = json.loads(self._ready_file.read_text())
                self._say_ready()
                return
            await asyncio.sleep(_POLL)

    async def _wait(self, seconds: float) -> None:
        """Before its next life; not when it is told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
