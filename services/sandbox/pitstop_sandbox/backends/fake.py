"""A backend without sandboxes: processes are coroutines of this process, on real pipes, terminals and spool files.

For unit tests of what uses a backend, and for a bench host that measures everything but sandboxes. It keeps the same
contract as the real ones (one suite runs on all), as far as coroutines can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pitstop_sandbox.backends.loopback import FakeListener, Loopback
from pitstop_sandbox.backends.played import Program, Resolve, Running, set_size, succeed
from pitstop_sandbox.backends.port import BackendError, Exit, Hear, Process, SandboxSpec, Spawn, Tcp, Unix, silent
from pitstop_sandbox.backends.trees import remove_tree
from pitstop_sandbox.holder import modes

_HARMLESS: Final = {0, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}


class FakeProcess:
    """See `Process`."""

    def __init__(self, sandbox: FakeSandbox, request: Spawn, program: Program) -> None:
        folder = sandbox.spec.folder
        self.request = request
        self.id = request.id
        self.scrollback: Path | None = None
        self.spool = folder / "holder" / f"{request.id}.out" if request.mode == "spool" else None
        self.exit: Exit | None = None
        self._sandbox = sandbox
        self._master = -1
        self.fds, inner = self._open()
        self._inner = set(inner) - {-1}
        self.running = Running(request, folder, inner, sandbox.wake)
        self._task = asyncio.ensure_future(self._run(program))

    def _open(self) -> tuple[tuple[int, ...], tuple[int, int, int]]:
        if self.spool:
            out = os.open(self.spool, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            return (), (-1, out, out)
        if self.request.mode == "pty":
            self._master, slave = os.openpty()
            modes.apply(slave, self.request.modes)
            set_size(self._master, self.request.columns, self.request.rows)
            os.set_blocking(slave, False)
            return (os.dup(self._master),), (slave, slave, slave)
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        from_stderr, stderr = os.pipe()
        os.set_blocking(stdin, False)
        return (to_stdin, from_stdout, from_stderr), (stdin, stdout, stderr)

    async def _run(self, program: Program) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._end(Exit(await program(self.running)))
        for task in self.running.background:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._close()

    def _end(self, how: Exit) -> None:
        self.exit = self.exit or how
        self._sandbox.wake()

    def _close(self) -> None:
        for fd in (*self._inner, *([self._master] if self._master >= 0 else [])):
            os.close(fd)
        self._inner, self._master = set(), -1

    def again(self) -> tuple[int, ...]:
        """The descriptors for one more `spawn` of this id."""
        return (os.dup(self._master),) if self._master >= 0 else ()

    async def wait(self) -> Exit:
        """See `Process`."""
        while self.exit is None:
            await self._sandbox.changed()
        return self.exit

    async def grown(self, beyond: int) -> int:
        """See `Process`."""
        if self.spool is None:
            await self.wait()
            return 0
        while (size := self.spool.stat().st_size) <= beyond and self.exit is None:
            await self._sandbox.changed()
        return size

    async def signal(self, number: int, *, tree: bool = False) -> int:
        """See `Process`."""
        counted = (self.exit is None) + len([task for task in self.running.background if not task.done()])
        if tree and number not in _HARMLESS:
            for task in self.running.background:
                task.cancel()
        if self.exit is None and number not in _HARMLESS - self.running.caught:
            self._hear(number)
        return counted if tree and self.spool is not None else 0

    def _hear(self, number: int) -> None:
        if number in self.running.caught and number != signal.SIGKILL:
            self.running.signals.put_nowait(number)
        else:
            self._end(Exit(128 + number, int(number)))
            self._task.cancel()

    async def resize(self, columns: int, rows: int) -> None:
        """See `Process`."""
        if self._master >= 0:
            set_size(self._master, columns, rows)
            await self.signal(signal.SIGWINCH)

    async def stop(self) -> None:
        """With its sandbox."""
        for task in (*self.running.background, self._task):
            task.cancel()
        await asyncio.wait({self._task})  # and a cancellation of who waits here is not taken for the task's
        self._close()


class FakeHandle:
    """A process as one `spawn` or `processes` gave it: the same process, its own descriptors."""

    def __init__(self, process: FakeProcess, fds: tuple[int, ...]) -> None:
        self.id = process.id
        self.fds = fds
        self.spool = process.spool
        self.scrollback = process.scrollback
        self.wait = process.wait
        self.grown = process.grown
        self.signal = process.signal
        self.resize = process.resize


class FakeSandbox:
    """See `Sandbox`. `lose` makes it die by itself."""

    notes = ("no sandbox: nothing here is isolated, and nothing real runs",)
    env: Mapping[str, str] = MappingProxyType({})
    image: str = ""

    def __init__(self, spec: SandboxSpec, machine: FakeMachine) -> None:
        self.spec = spec
        self.id = spec.id
        self._machine = machine
        self._processes: dict[str, FakeProcess] = {}
        self._reason = ""
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._network = Loopback()

    def give(self, path: Path) -> None:
        """See `Sandbox`: there is one user."""

    def check(self) -> None:
        """Raises BackendError when the sandbox is no more."""
        if self._reason or self._machine.sandboxes.get(self.spec.folder) is not self:
            raise BackendError("sandbox_lost", self._reason or "the sandbox was removed")

    async def changed(self) -> None:
        """Returns at the next news of any process."""
        self.check()
        await self._news.wait()

    def wake(self) -> None:
        """There is news."""
        self._news.set()
        self._news = asyncio.Event()

    async def spawn(self, request: Spawn) -> FakeHandle:
        """See `Sandbox`."""
        self.check()
        if process := self._processes.get(request.id):
            return FakeHandle(process, process.again())
        program = self._machine.resolve(request)
        if program is None:
            raise BackendError("spawn_failed", f"there is no program {request.argv[0]} here")
        process = self._processes[request.id] = FakeProcess(self, request, program)
        return FakeHandle(process, process.fds)

    async def dial(self, to: Tcp | Unix) -> int:
        """See `Sandbox`: what was opened by `listen`, and nothing else."""
        self.check()
        return self._network.dial(to)

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> FakeListener:
        """See `Sandbox`."""
        self.check()
        return self._network.listen(at)

    async def processes(self) -> dict[str, Process]:
        """See `Sandbox`."""
        self.check()
        return {name: FakeHandle(process, ()) for name, process in self._processes.items()}

    async def cpu_seconds(self) -> dict[str, float]:
        """See `Sandbox`: what their programs say they have used."""
        self.check()
        return {name: each.running.cpu for name, each in self._processes.items() if each.exit is None}

    async def shells(self) -> tuple[str, ...]:
        """See `Sandbox`."""
        return ("/usr/bin/bash", "/usr/bin/sh")

    async def lost(self) -> BackendError:
        """See `Sandbox`."""
        await self._gone.wait()
        return BackendError("sandbox_lost", f"the sandbox died: {self._reason}")

    async def lose(self, reason: str) -> None:
        """Die, as a sandbox does when its holder is killed."""
        self._reason = reason
        self._machine.sandboxes.pop(self.spec.folder, None)
        await self._stop()
        self._gone.set()

    async def remove(self) -> None:
        """See `Sandbox`."""
        self._machine.sandboxes.pop(self.spec.folder, None)
        await self._stop()
        for name in ("holder", "home"):
            remove_tree(self.spec.folder / name)

    async def _stop(self) -> None:
        for process in self._processes.values():
            await process.stop()
        await self._network.aclose()
        self.wake()


def always_succeed(_request: Spawn) -> Program:
    """Every program does nothing, well."""
    return succeed


class FakeMachine:
    """What outlives a backend object: the sandboxes there are. Give one machine to several backends."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self.resolve = resolve or always_succeed
        self.sandboxes: dict[Path, FakeSandbox] = {}


class FakeBackend:
    """See `Backend`."""

    name = "fake"

    def __init__(self, machine: FakeMachine | None = None) -> None:
        self.machine = machine or FakeMachine()

    async def probe(self) -> tuple[bool, str]:
        """See `Backend`."""
        return True, "no sandboxes: processes are only played"

    async def create(self, spec: SandboxSpec, say: Hear = silent) -> FakeSandbox:
        """See `Backend`."""
        if spec.folder in self.machine.sandboxes:
            raise BackendError("sandbox_exists", "there is a sandbox in this folder; adopt it, or remove it first")
        for name in ("holder", "home", "work", "job", "bin"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{spec.folder}/{name}")  # noqa: PTH102
        sandbox = self.machine.sandboxes[spec.folder] = FakeSandbox(spec, self.machine)
        return sandbox

    async def adopt(self, spec: SandboxSpec) -> FakeSandbox | None:
        """See `Backend`."""
        found = self.machine.sandboxes.get(spec.folder)
        return found if found and found.id == spec.id else None

    def alive(self) -> None:
        """See `Backend`: there are no holders."""

    def expects(self, jobs: bool) -> None:
        """See `Backend`. Nothing is made ahead."""

    async def mine(self, root: Path) -> dict[Path, str]:
        """See `Backend`."""
        return {folder: found.id for folder, found in self.machine.sandboxes.items() if folder.parent.parent == root}

    async def aclose(self) -> None:
        """See `Backend`."""
