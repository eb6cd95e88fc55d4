"""A service as a child process: started, watched, said when it dies, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pitstop_common.backoff import Backoff
from pitstop_common.embedded import die_with_parent
from pitstop_common.errors import Unavailable
from pitstop_common.ready_process import ReadyProcess

_STOP_SECONDS: Final = 32.0
"""A little more than a service's own deadline."""
_CONFIG_EXIT: Final = 2
_LAST_LINES: Final = 5
_LOG_BYTES: Final = 16 * 1024 * 1024


class Child(ReadyProcess):
    """One service. `ready`: the facts of its newest ready line; `changed` hears its name when there are new ones."""

    def __init__(
        self, name: str, argv: list[str], env: Callable[[], Mapping[str, str]], *, log: Path, ready_file: Path,
        say: Callable[[str], None], changed: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(ready_file, self._is_ready)
        self.name = name
        self._argv, self._env, self._log = argv, env, log
        self._say, self._changed = say, changed
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._fatal = ""
        self._told = ""

    def start(self) -> None:
        """Run it, and keep it running."""
        self._task = asyncio.create_task(self._supervise())

    async def first_ready(self) -> None:
        """Returns when it has been ready once. Raises Unavailable when it refuses its settings."""
        await self._first.wait()
        if self._fatal:
            raise Unavailable(self._fatal)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it for good: `number`, and SIGKILL when it outlives its deadline."""
        self._stopping.set()
        if self._task is None:
            return
        self.send(number)
        _, late = await asyncio.wait([self._task], timeout=_STOP_SECONDS)
        if late:
            self._say(f"{self.name} did not stop in {_STOP_SECONDS:.0f} s and is killed")
            self.send(signal.SIGKILL)
        await asyncio.gather(self._task, return_exceptions=True)
        self._ready_file.unlink(missing_ok=True)

    async def _supervise(self) -> None:
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            born, size = loop.time(), self._log.stat().st_size if self._log.exists() else 0
            code = await self._live(self._start_one)
            if self._stopping.is_set():
                return
            if code == _CONFIG_EXIT and not self._first.is_set():
                self._fatal = f"{self.name} refuses its settings:\n{self._last_words(size)}"
                self._first.set()
                return
            delay = backoff.after(loop.time() - born)
            self._say(f"{self.name} {_ended(code)}; starting it again in {delay:.1f} s{self._news(size)}")
            await self._wait(delay)

    async def _start_one(self) -> Process:
        self._rotate()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv, stdin=DEVNULL, stdout=descriptor, stderr=descriptor, env=dict(self._env()),
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        finally:
            os.close(descriptor)

    def _is_ready(self) -> None:
        self._first.set()
        self._changed(self.name)

    def _news(self, since: int) -> str:
        """The last words, unless they are those of the death before."""
        words = self._last_words(since)
        known, self._told = self._told == words, words
        return " (it said the same as before)" if known else f"\n{words}"

    def _last_words(self, since: int) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(since, self._log.stat().st_size - 16384))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        told = [f"  | {line}" for line in lines[-_LAST_LINES:]] or ["  | (it said nothing)"]
        return "\n".join([*told, f"  all of it: {self._log}"])

    def _rotate(self) -> None:
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.rename(self._log.with_suffix(".log.1"))


def python(module: str) -> list[str]:
    """The command line of a module of this installation."""
    return [sys.executable, "-m", module]


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
