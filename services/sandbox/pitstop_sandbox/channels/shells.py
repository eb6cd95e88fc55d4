"""Interactive shells, which belong to the job and not to a connection: who has which, and who is with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from pitstop_sandbox.backends.port import BackendError, Process, Sandbox, Spawn
from pitstop_sandbox.channels.pump import Output
from pitstop_sandbox.channels.screen import Screen
from pitstop_sandbox.holder.scrollback import Scrollback

log = logging.getLogger(__name__)

KILL_AFTER: Final = 5.0
"""From SIGHUP to SIGKILL for what nobody is to come back to, seconds."""
LET_GO_WITHIN: Final = 5.0
"""For a connection that is dropped to leave its shell, seconds."""


class Line(Protocol):
    """The connection that a shell is shown on."""

    async def alive(self) -> bool:
        """Does its client still answer."""

    def drop(self) -> None:
        """End it: its shell is taken over."""


class Shell:
    """A shell that somebody has: while nobody is with it, what it shows is read and kept. Owns `terminal`."""

    def __init__(self, process: Process, terminal: int, user: str, line: Line | None) -> None:
        """Raises OSError."""
        assert process.scrollback is not None
        self.process = process
        self.user = user
        self.line = line
        self.alone = asyncio.Event()
        self.screen = Screen()
        self._terminal = terminal
        self._kept = Scrollback(process.scrollback)
        self._reading: Output | None = None
        with contextlib.suppress(OSError):
            self.screen.shown(self._kept.read())

    def shown(self, data: bytes) -> None:
        """It wrote this on its terminal."""
        self._kept.append(data)
        self.screen.shown(data)

    def scrollback(self) -> bytes:
        """What it showed last."""
        try:
            return self._kept.read()
        except OSError:
            return b""

    @property
    def position(self) -> int:
        """How many bytes it has ever shown. Raises OSError."""
        return self._kept.position

    def shown_since(self, position: int) -> tuple[bytes, int]:
        """What it showed behind a position, as far as it is kept; and where that ends. Raises OSError."""
        return self._kept.since(position), self._kept.position

    def join(self, line: Line) -> int:
        """Somebody is with it: a descriptor of the terminal for them, who read it from now on."""
        self.line = line
        self.alone.clear()
        self._stop_reading()
        return os.dup(self._terminal)

    def leave(self) -> None:
        """They have gone."""
        self.line = None
        self._stop_reading()
        self._reading = Output(os.dup(self._terminal), self.shown)
        self.alone.set()

    def close(self) -> None:
        """It has ended, or is somebody else's to watch."""
        self._stop_reading()
        self._kept.close()
        os.close(self._terminal)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None


class Shells:
    """Those of one job. `ended` is told of each that ends while nobody is with it."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._all: dict[str, Shell] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}

    def of(self, process: str) -> Shell | None:
        """The shell that is this process."""
        return self._all.get(process)

    def open(self, process: Process, user: str, line: Line) -> Shell | None:
        """A new one, somebody is with it. None: it cannot be kept."""
        if process.scrollback is None:
            return None
        return self._add(process, os.dup(process.fds[0]), user, line)

    async def adopt(self, sandbox: Sandbox, users: Mapping[str, str]) -> list[str]:
        """Those that an earlier host process had (process -> user). Returns what has ended meanwhile. Raises
        BackendError."""
        there, ended = await sandbox.processes(), []
        for id, user in users.items():
            process = await sandbox.spawn(_again(id)) if id in there else None
            shell = self._add(process, process.fds[0], user, None) if process is not None and process.fds else None
            if shell is not None:
                self.leave(shell)
            else:
                ended.append(id)
        return ended

    async def take(self, user: str, line: Line) -> Shell | None:
        """The newest of a user that nobody is with, or whose connection has died unnoticed. None: they need another."""
        shell = self._free(user)
        for other in reversed(list(self._all.values())):
            if shell is not None:
                break
            if other.user == user and other.line not in (None, line):
                shell = await self._taken_over(other)
        shell = shell or self._free(user)  # while others were asked
        if shell is not None:
            shell.line = line
            self._watch_no_more(shell)
        return shell

    def leave(self, shell: Shell) -> None:
        """Whoever was with it has gone; it goes on."""
        if shell.process.id in self._all:
            shell.leave()
            self._watching[shell.process.id] = asyncio.ensure_future(self._watch(shell))

    def forget(self, process: str) -> None:
        """It has ended."""
        shell = self._all.pop(process, None)
        if shell is not None:
            self._watch_no_more(shell)
            shell.close()

    async def hang_up(self) -> None:
        """End those that nobody is with."""
        for process in [shell.process for shell in self._all.values() if shell.line is None]:
            with contextlib.suppress(BackendError):
                await process.signal(signal.SIGHUP, tree=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_AFTER):
                        await process.wait()
                await process.signal(signal.SIGKILL, tree=True)

    def close(self) -> None:
        """Let go of all: they go on."""
        for process in list(self._all):
            self.forget(process)

    def _free(self, user: str) -> Shell | None:
        mine = [shell for shell in self._all.values() if shell.user == user and shell.line is None]
        return mine[-1] if mine else None

    async def _taken_over(self, shell: Shell) -> Shell | None:
        line = shell.line
        if line is None or await line.alive():
            return None
        if shell.line is line:
            line.drop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_WITHIN):
                await shell.alone.wait()
        return shell if shell.line is None and shell.process.id in self._all else None

    def _add(self, process: Process, terminal: int, user: str, line: Line | None) -> Shell | None:
        try:
            shell = self._all[process.id] = Shell(process, terminal, user, line)
        except OSError as error:
            log.warning("the shell %s cannot be kept: %s", process.id, error)
            os.close(terminal)
            return None
        return shell

    async def _watch(self, shell: Shell) -> None:
        try:
            await shell.process.wait()
        except BackendError:
            self.forget(shell.process.id)
            return
        del self._watching[shell.process.id]
        self.forget(shell.process.id)
        self._ended(shell.process.id)

    def _watch_no_more(self, shell: Shell) -> None:
        watching = self._watching.pop(shell.process.id, None)
        if watching is not None and watching is not asyncio.current_task():
            watching.cancel()


def _again(process: str) -> Spawn:
    """Asks for the terminal of a process that runs: nothing is started under an id that is known."""
    return Spawn(id=process, argv=("false",), env={}, cwd="/", mode="pty", keep=True)
