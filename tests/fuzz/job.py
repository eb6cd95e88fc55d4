"""A job that starts nothing and reaches nothing: what a client asks for are pipes and sockets of this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.entered_jobs import LocalJob

from pitstop_sandbox.backends.port import BackendError, Exit, Listener, Process, Tcp, Unix
from pitstop_sandbox.backends.sockets import SocketListener
from pitstop_sandbox.channels.forwards import FIRST_FREE_PORT
from pitstop_sandbox.ports import Entry, Pty, Session

_NOBODY = Path("/nonexistent")
_SHORT_LIVED = 3
_NOWHERE = 5


class Played:
    """A process that says a word and ends, or waits for a signal and reads nothing."""

    def __init__(self, number: int, terminal: bool) -> None:
        self.id = str(number)
        self.spool = self.scrollback = None
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        if terminal:
            ours, theirs = socket.socketpair()
            self.fds: tuple[int, ...] = (theirs.detach(),)
            self._inside = [ours.detach()]
        else:
            stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
            self.fds = (stdin[1], stdout[0], stderr[0])
            self._inside = [stdin[0], stdout[1], stderr[1]]
        os.write(self._inside[terminal ^ 1], b"hello\n")
        if number % _SHORT_LIVED == 0:
            self._end(Exit(0))

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def grown(self, beyond: int) -> int:
        raise NotImplementedError

    async def signal(self, number: int, *, tree: bool = False) -> int:
        self._end(Exit(128 + number, number))
        return 0

    async def resize(self, columns: int, rows: int) -> None:
        assert 0 < columns <= 4096 and 0 < rows <= 4096, "a window that no kernel takes"

    def _end(self, how: Exit) -> None:
        if not self._exit.done():
            self._exit.set_result(how)
        for fd in self._inside:
            os.close(fd)
        self._inside.clear()


class PlayedJob(LocalJob):
    """Counts who was let in, and what was started."""

    def __init__(self, job: str) -> None:
        super().__init__(job, _NOBODY)
        self.opened_count = self.closed_count = self.made = 0

    def _say(self, *words: str) -> None:
        self.opened_count += words[0] == "opened"
        self.closed_count += words[0] == "closed"

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        return Entry(env={}, cwd="/", shell="/bin/sh", umask=0o022, notice="")

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        self.made += 1
        return Played(self.made, pty is not None)

    async def dial(self, to: Tcp | Unix) -> int:
        self.made += 1
        if self.made % _NOWHERE == 0:
            raise BackendError("unreachable", "nobody listens there")
        ours, theirs = socket.socketpair()
        ours.close()
        return theirs.detach()

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        if isinstance(at, Tcp) and 0 < at.port < FIRST_FREE_PORT:
            raise BackendError("unreachable", "permission denied")
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        port = listening.getsockname()[1]
        return SocketListener(port, [listening.detach()], _nothing)


async def _nothing() -> None:
    pass
