"""A process of the sandbox with its descriptors joined to a channel, until one of both ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Final, NamedTuple

import asyncssh

from pitstop_sandbox.backends.port import BackendError, Exit, Process
from pitstop_sandbox.channels.pump import Input, Output
from pitstop_sandbox.channels.screen import Screen
from pitstop_sandbox.channels.shells import KILL_AFTER, Shell
from pitstop_sandbox.channels.waiting import either

log = logging.getLogger(__name__)

TERMINAL_GRACE: Final = 2.0
"""How long a terminal may stay open after its process has ended, while its client reads, seconds."""


class Begun(NamedTuple):
    """A process that a channel is to be joined to: its descriptors, the kept shell that it is, and what is shown
    first."""

    process: Process
    fds: tuple[int, ...]
    shell: Shell | None = None
    greeting: bytes = b""


class Running:
    """Owns the process's descriptors. The process itself belongs to the sandbox."""

    def __init__(
        self,
        process: Process,
        channel: asyncssh.SSHServerChannel[bytes],
        shown: Callable[[int], None],
        fds: tuple[int, ...],
        *,
        terminal: bool,
        shell: Shell | None = None,
    ) -> None:
        """`fds`: of the process, this one's from now on. `shell`: it is kept, and goes on without its client."""
        self.process = process
        self._shell = shell
        self._channel = channel
        self._shown = shown
        self._terminal = terminal
        self.screen = shell.screen if shell else Screen()
        self._holds: set[str] = set()
        self._size: tuple[int, int] | None = None
        self._resizing: asyncio.Task[None] | None = None
        self._waiting = asyncio.ensure_future(process.wait())
        pause, resume = channel.pause_reading, channel.resume_reading
        if terminal:
            (master,) = fds
            self.input = Input(os.dup(master), pause, resume)
            self._outputs = [Output(master, self._deliver(None))]
        else:
            stdin, stdout, stderr = fds
            self.input = Input(stdin, pause, resume)
            self._outputs = [
                Output(stdout, self._deliver(None)),
                Output(stderr, self._deliver(asyncssh.EXTENDED_DATA_STDERR)),
            ]

    def hold(self, why: str) -> None:
        """Read no more from the process for now."""
        self._holds.add(why)
        for output in self._outputs:
            output.hold(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        self._holds.discard(why)
        for output in self._outputs:
            output.release(why)

    def resize(self, size: tuple[int, int]) -> None:
        """The terminal's new size, columns and rows. Of several at once the last counts."""
        self._size = size
        if self.screen.recorder is not None:
            self.screen.recorder.resized(*size)
        if self._resizing is None:
            self._resizing = asyncio.ensure_future(self._resize())

    async def ended(self, lost: asyncio.Event) -> bool:
        """Until the process has ended: by itself (true), or because its client was lost (false), when it is hung up
        and, if need be, killed; unless it is kept."""
        await either(self._waiting, lost)
        by_itself = self._waiting.done() and self._waiting.exception() is None and not lost.is_set()
        if not self._waiting.done() and self._shell is None:
            await self._hang_up()
        return by_itself

    async def flushed(self, lost: asyncio.Event) -> None:
        """Until all that the process wrote is in the channel. Pipes stay open as long as anybody holds them, as with
        any sshd; a terminal ends with its process."""
        for output in self._outputs:
            while not output.done.done() and not lost.is_set():
                await either(output.done, lost, TERMINAL_GRACE if self._terminal else None)
                if self._terminal and not self._holds:
                    break
        self.close()

    async def exit(self) -> tuple[int, str]:
        """Exit status, and the name of the signal that ended it, without SIG, or empty. Raises BackendError."""
        end: Exit = await self._waiting
        with contextlib.suppress(ValueError):
            if end.signal:
                return end.code, signal.Signals(end.signal).name.removeprefix("SIG")
        return end.code, ""

    def close(self) -> None:
        """Let the descriptors go."""
        self.input.close()
        for output in self._outputs:
            output.close()

    def let_go(self) -> None:
        """As `close`; and nobody waits for the process any more."""
        self.close()
        self._waiting.cancel()

    def _deliver(self, datatype: int | None) -> Callable[[bytes], None]:
        def deliver(data: bytes) -> None:
            with contextlib.suppress(OSError):
                self._channel.write(data, datatype)
            if self._shell:
                self._shell.shown(data)
            elif self._terminal:
                self.screen.shown(data)
            self._shown(len(data))

        return deliver

    async def _hang_up(self) -> None:
        with contextlib.suppress(BackendError):
            await self.process.signal(signal.SIGHUP, tree=True)
            await asyncio.wait({self._waiting}, timeout=KILL_AFTER)
            if not self._waiting.done():
                await self.process.signal(signal.SIGKILL, tree=True)
                await asyncio.wait({self._waiting}, timeout=KILL_AFTER)
        if not self._waiting.done():
            log.error("process %s does not end", self.process.id)
            self._waiting.cancel()

    async def _resize(self) -> None:
        try:
            while (size := self._size) is not None:
                self._size = None
                with contextlib.suppress(BackendError):
                    await self.process.resize(*size)
        finally:
            self._resizing = None
