"""The job that people enter: its processes are of this machine, or of a real sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import socket
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.patience import PATIENCE

from pitstop_sandbox.backends.port import (
    BackendError,
    Exit,
    Listener,
    Process,
    Sandbox,
    Spawn,
    Tcp,
    Unix,
)
from pitstop_sandbox.backends.sockets import SocketListener
from pitstop_sandbox.channels.screen import Recorder
from pitstop_sandbox.channels.shells import Line, Shell
from pitstop_sandbox.holder import modes
from pitstop_sandbox.ports import Entry, Pty, Session, Use

SHELL = "/bin/bash"


class LocalProcess:
    """A process of this machine with the face of a sandbox's."""

    def __init__(self, popen: subprocess.Popen[bytes], fds: tuple[int, ...]) -> None:
        self.popen = popen
        self.id = str(popen.pid)
        self.fds = fds
        self.spool: Path | None = None
        self.scrollback: Path | None = None
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self.popen.wait()
        self._exit.set_result(Exit(128 - code, -code) if code < 0 else Exit(code))

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def grown(self, beyond: int) -> int:
        raise NotImplementedError

    async def signal(self, number: int, *, tree: bool = False) -> int:
        with contextlib.suppress(ProcessLookupError):
            if tree:
                os.killpg(self.popen.pid, number)
            elif self.popen.poll() is None:
                self.popen.send_signal(number)
        return 0

    async def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fds[0], termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@dataclass
class LocalJob:
    """Implements SessionHost, and remembers what it was told."""

    job: str
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"], "STEP": "two words"})
    notice: str = "step 3 failed: exit code 7"
    said: list[tuple[str, ...]] = field(default_factory=list)
    processes: list[LocalProcess] = field(default_factory=list)
    keys: int = 0
    outputs: int = 0
    bytes: int = 0
    spawn_error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _say(self, *words: str) -> None:
        self.said.append(words)
        self.changed.set()

    async def opened(self, session: Session) -> None:
        self._say("opened", session.user, session.fingerprint)

    def record(self, session: Session, process: Process, shell: Shell | None, title: str,
               size: tuple[int, int]) -> Recorder | None:  # fmt: skip
        return None

    def unrecord(self, process: str) -> None:
        raise AssertionError("nothing is recorded")

    async def closed(self, session: Session, reason: str) -> None:
        self._say("closed", session.user, reason)

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        return Entry(env=self.env, cwd=str(self.cwd), shell=SHELL, umask=0o027, notice=self.notice)

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        if self.spawn_error:
            raise BackendError("spawn_failed", self.spawn_error)
        whole = {**entry.env, **env}
        process = _in_terminal(argv, entry, whole, pty) if pty else _on_pipes(argv, entry, whole)
        self.processes.append(process)
        return process

    async def dial(self, to: Tcp | Unix) -> int:
        try:
            if isinstance(to, Tcp):
                return socket.create_connection((to.host, to.port), timeout=10).detach()
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(to.path)
            return sock.detach()
        except OSError as error:
            raise BackendError("unreachable", error.strerror or str(error)) from None

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        sock = socket.socket(socket.AF_INET if isinstance(at, Tcp) else socket.AF_UNIX)
        if folder and isinstance(at, Unix):
            Path(at.path).parent.mkdir()
        try:
            sock.bind(("127.0.0.1", at.port) if isinstance(at, Tcp) else at.path)
        except OSError as error:
            sock.close()
            raise BackendError("unreachable", error.strerror or str(error)) from None
        sock.listen()
        port = sock.getsockname()[1] if isinstance(at, Tcp) else 0

        async def removed() -> None:
            if isinstance(at, Unix):
                Path(at.path).unlink()
                if folder:
                    Path(at.path).parent.rmdir()

        return SocketListener(port, [sock.detach()], removed)

    def used(self, session: Session, use: Use) -> None:
        self._say("used", use.kind, use.what)

    def moved(self, size: int) -> None:
        self.bytes += size

    def shell_started(self, session: Session, process: Process, line: Line) -> Shell | None:
        self._say("shell_started")
        return None

    async def take_shell(self, session: Session, line: Line) -> Shell | None:
        return None

    def shell_left(self, shell: Shell) -> None:
        raise AssertionError("there are none")

    async def shell_ended(self, session: Session, process: object, *, by_itself: bool) -> None:
        self._say("shell_ended", "by itself" if by_itself else "cut")

    def key(self) -> None:
        self.keys += 1

    def output(self) -> None:
        self.outputs += 1

    async def until(self, *words: str) -> None:
        """Until it was told so."""
        async with asyncio.timeout(PATIENCE):
            while not any(said[: len(words)] == words for said in self.said):
                self.changed.clear()
                await self.changed.wait()


class SandboxJob(LocalJob):
    """The same in a sandbox."""

    def __init__(self, job: str, folder: Path, sandbox: Sandbox) -> None:
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STEP": "two words", "HOME": "/home/runner"}
        super().__init__(job, folder, env=env)
        self.sandbox = sandbox
        self.inside: list[Process] = []

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        return Entry(env=self.env, cwd="/home/runner/work", shell=SHELL, umask=0o022, notice=self.notice)

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        terminal = pty or Pty()
        request = Spawn(id=f"ssh-{len(self.inside)}", argv=argv, env={**entry.env, **env}, cwd=entry.cwd,
                        mode="pty" if pty else "pipes", columns=terminal.columns, rows=terminal.rows,
                        modes=terminal.modes, umask=entry.umask)  # fmt: skip
        process = await self.sandbox.spawn(request)
        self.inside.append(process)
        return process

    async def dial(self, to: Tcp | Unix) -> int:
        return await self.sandbox.dial(to)

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        return await self.sandbox.listen(at, folder=folder)


def _on_pipes(argv: Sequence[str], entry: Entry, env: Mapping[str, str]) -> LocalProcess:
    ends = [os.pipe() for _ in range(3)]
    popen = subprocess.Popen(
        argv, stdin=ends[0][0], stdout=ends[1][1], stderr=ends[2][1], env=dict(env), cwd=entry.cwd,
        umask=entry.umask, start_new_session=True,
    )  # fmt: skip
    for fd in (ends[0][0], ends[1][1], ends[2][1]):
        os.close(fd)
    return LocalProcess(popen, (ends[0][1], ends[1][0], ends[2][0]))


def _in_terminal(argv: Sequence[str], entry: Entry, env: Mapping[str, str], wanted: Pty) -> LocalProcess:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", wanted.rows, wanted.columns, 0, 0))
    modes.apply(slave, wanted.modes)
    popen = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=dict(env), cwd=entry.cwd, umask=entry.umask,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    return LocalProcess(popen, (master,))
