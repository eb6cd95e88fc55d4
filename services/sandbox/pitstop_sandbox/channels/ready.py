"""A shell that is started ahead, so that whoever comes to a paused job first finds a prompt.

Only what a terminal can be told later may differ from what its person asks for: its size. A program has its environment
from its start, and a shell that edits its line keeps the terminal's modes as they were; whoever asks for others gets a
new shell. So it is started as its person asked the last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from pitstop_sandbox.backends.port import BackendError, Process, Sandbox, Spawn
from pitstop_sandbox.holder import modes
from pitstop_sandbox.model import STARTED_AHEAD

SESSION: Final = "PITSTOP_SESSION"
"""Of a shell that was started ahead it is the process's own id: nobody's session is known yet."""
_REMEMBERED: Final = 256


class Wish(msgspec.Struct, frozen=True):
    """How a client asks for a terminal: what it adds to the step's environment (TERM with it), and modes as in
    `Spawn`."""

    env: Mapping[str, str]
    modes: Sequence[tuple[int, int]] = ()


_FIRST: Final = Wish({"TERM": "xterm-256color"})
"""Most terminals, with a locale that is UTF-8."""


class Wishes:
    """What people asked for the last time, by user."""

    def __init__(self) -> None:
        self._last: dict[str, Wish] = {}

    def remember(self, user: str, wish: Wish) -> None:
        """They have asked so."""
        self._last.pop(user, None)
        self._last[user] = wish
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]

    def of(self, user: str) -> Wish:
        """What they will ask for."""
        return self._last.get(user, _FIRST)


class Ready:
    """Keeps at most one shell. Owns its terminal until it is taken."""

    def __init__(self) -> None:
        self._kept: tuple[Spawn, Process] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._turn = 0
        self._starting = False

    @property
    def there(self) -> bool:
        """Is there one, or soon to be."""
        return self._kept is not None or self._starting

    async def start(self, sandbox: Sandbox, request: Spawn) -> None:
        """Have one, unless it is not wanted any more when it runs. Raises BackendError."""
        self._turn += 1
        turn = self._turn
        self._starting = True
        try:
            process = await sandbox.spawn(request)
        finally:
            self._starting = False
        if turn == self._turn and process.fds:
            self._kept = request, process
            self._watching = asyncio.ensure_future(self._watch(process))
        else:
            await _end(process)

    def take(self, request: Spawn) -> Process | None:
        """The shell, if it is just what is asked for. It is its taker's then."""
        if self._kept is None or not fits(self._kept[0], request):
            return None
        _, process = self._kept
        self._forget()
        return process

    async def drop(self) -> None:
        """End it: it would be stale."""
        kept, self._kept = self._kept, None
        self._forget()
        if kept is not None:
            await _end(kept[1])

    def close(self) -> None:
        """Let go of it: it goes on."""
        if self._kept is not None:
            _close(self._kept[1])
        self._forget()

    def _forget(self) -> None:
        self._turn += 1
        self._kept = None
        watching, self._watching = self._watching, None
        if watching is not None and watching is not asyncio.current_task():
            watching.cancel()

    async def _watch(self, process: Process) -> None:
        with contextlib.suppress(BackendError):
            await process.wait()
        self.close()


def fits(ready: Spawn, asked: Spawn) -> bool:
    """Is what runs all that is asked for, but for what can be told to it now."""
    return _essence(ready) == _essence(asked)


async def end_all(sandbox: Sandbox, taken: Callable[[str], bool]) -> None:
    """End what an earlier host process had started ahead, and nobody took. A sandbox that is lost has none."""
    with contextlib.suppress(BackendError):
        for id, process in (await sandbox.processes()).items():
            if id.startswith(STARTED_AHEAD) and not taken(id):
                await process.signal(signal.SIGKILL)


def _essence(request: Spawn) -> object:
    env = {name: value for name, value in request.env.items() if name != SESSION}
    return (tuple(request.argv), env, request.cwd, request.mode, request.umask, request.keep,
            modes.of_new(request.modes))  # fmt: skip


async def _end(process: Process) -> None:
    _close(process)
    with contextlib.suppress(BackendError):
        await process.signal(signal.SIGKILL, tree=True)


def _close(process: Process) -> None:
    for fd in process.fds:
        os.close(fd)
