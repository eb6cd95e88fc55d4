"""What the contract of a backend is tried with: backends on one machine, and programs in two forms.

Each program is a shell script for real sandboxes and a coroutine that does the same for the fake.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.docker_engine import FULL, DockerEngine
from tests.patience import PATIENCE

from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.fake import FakeBackend, FakeMachine, FakeSandbox
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.played import Program, Running
from pitstop_sandbox.backends.port import Backend, Hear, Process, Sandbox, SandboxSpec, Spawn, silent
from pitstop_sandbox.holder import kernel
from pitstop_sandbox.holder.start import FIRST_PROCESS

T = TypeVar("T")
ENV = {"PATH": "/usr/bin:/bin"}
DEADLINE = PATIENCE
INIT = [" ".join(FIRST_PROCESS), "cat"]
"""What every sandbox runs by itself, as `ps` shows it."""
WORKSPACE = "/home/runner/work"
PROGRAMS: dict[str, Program] = {}


def script(text: str) -> Callable[[Program], str]:
    """Both forms of a program; its name is the text."""

    def register(program: Program) -> str:
        PROGRAMS[text] = program
        return text

    return register


def shell(text: str, *, mode: str = "spool", name: str = "main", **more: Any) -> Spawn:
    """A `Spawn` of a script."""
    settings: dict[str, Any] = {"env": ENV, "cwd": WORKSPACE, **more}
    return Spawn(id=name, argv=["sh", "-c", text], mode=mode, **settings)  # type: ignore[arg-type]


def _resolve(request: Spawn) -> Program | None:
    return PROGRAMS[request.argv[2]] if request.argv[0] == "sh" else None


class Machine:
    """Makes backends that share what outlives them, and knows what must not be left of their sandboxes."""

    def __init__(self, kind: str, folder: Path, engine: DockerEngine | None = None) -> None:
        self.kind = kind
        self.engine = engine
        self.folder = folder
        self._fake = FakeMachine(_resolve)
        self._backends: list[Backend] = []
        self._pids: list[tuple[int, int]] = []
        self._made: list[SandboxSpec] = []

    def backend(self, **settings: Any) -> Backend:
        """One more."""
        made = self._make(settings)
        self._backends.append(made)
        return made

    def _make(self, settings: dict[str, Any]) -> Backend:
        if self.kind == "fake":
            return FakeBackend(self._fake)
        if self.engine is None:
            return NamespacesBackend(**settings)
        return DockerBackend(**{"host": self.engine.host, "settings": Settings(image=FULL), **settings})

    def spec(self, name: str = "job.1", **more: Any) -> SandboxSpec:
        """A folder for a sandbox."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return SandboxSpec(id=name, folder=folder, **more)

    async def create(self, backend: Backend, name: str = "job.1", say: Hear = silent, **more: Any) -> Sandbox:
        """A sandbox that is removed at the end of the test."""
        spec = self.spec(name, **more)
        self._made.append(spec)
        sandbox = await backend.create(spec, say)
        self._pids += pids_of(spec.folder)
        return sandbox

    async def lose(self, sandbox: Sandbox) -> None:
        """Kill the holder."""
        if isinstance(sandbox, FakeSandbox):
            await sandbox.lose("lost")
        else:
            os.kill(pids_of(self.folder / sandbox.id)[-1][0], signal.SIGKILL)

    async def end(self) -> None:
        """Remove all; nothing of them may be left."""
        last = self.backend()
        for spec in self._made:
            if sandbox := await last.adopt(spec):
                await sandbox.remove()
        for backend in self._backends:
            await backend.aclose()
        if self.engine is not None:
            assert self.engine.get("/containers/json?all=1") == (200, b"[]\n"), "containers are left"
        await until(lambda: not self.living(), "processes of a sandbox are left")
        for pid, _ in self._pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def living(self) -> list[int]:
        """Pids of holders and sandboxes that still run."""
        return [pid for pid, started in self._pids if lives(pid, started)]


def pids_of(folder: Path) -> list[tuple[int, int]]:
    """Process 1, bubblewrap and the holder of a sandbox, with their start times. None for the fake."""
    state = folder / "holder" / "state.json"
    return [(pid, started) for pid, started in json.loads(state.read_text())["pids"]] if state.exists() else []


def lives(pid: int, started: int) -> bool:
    """Is it there, and the same?"""
    return kernel.start_time(pid) == started and not kernel.is_exiting(pid)


async def until(condition: Callable[[], Any], fault: str) -> None:
    """Wait for a state."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(fault) from None


async def soon(awaitable: Awaitable[T]) -> T:
    """With the deadline of these tests."""
    return await asyncio.wait_for(awaitable, DEADLINE)


async def read_until(fd: int, marker: bytes | None = None) -> bytes:
    """From a pipe or terminal, up to a marker, or to its end."""
    loop = asyncio.get_running_loop()
    data = b""
    os.set_blocking(fd, False)
    async with asyncio.timeout(DEADLINE):
        while marker is None or marker not in data:
            ready = loop.create_future()
            loop.add_reader(fd, ready.set_result, None)
            try:
                await ready
                more = os.read(fd, 65536)
            except OSError:
                more = b""
            finally:
                loop.remove_reader(fd)
            if not more:
                return data
            data += more
    return data


async def output(process: Process) -> str:
    """All a spool process said."""
    await soon(process.wait())
    assert process.spool
    return process.spool.read_text()


async def run(sandbox: Sandbox, text: str, *, name: str = "main", **more: Any) -> tuple[int, str]:
    """A script's exit code and output."""
    process = await soon(sandbox.spawn(shell(text, name=name, **more)))
    said = await output(process)
    return (await process.wait()).code, said


def close_all(process: Process) -> None:
    """The descriptors of a process that are ours."""
    for fd in process.fds:
        os.close(fd)


# -- programs --------------------------------------------------------------------------------------------------------


@script("exit 7")
async def EXIT_7(running: Running) -> int:
    return 7


@script("echo out; echo err >&2; cat; exit 3")
async def CAT(running: Running) -> int:
    running.write(b"out\n")
    running.error(b"err\n")
    while data := await running.read():
        running.write(data)
    return 3


@script("echo up; exec sleep 600")
async def SLEEP(running: Running) -> int:
    running.write(b"up\n")
    await asyncio.sleep(600)
    return 0


@script("trap 'echo caught; exit 5' TERM; echo up; while :; do sleep 0.02; done")
async def CATCH(running: Running) -> int:
    running.caught.add(signal.SIGTERM)
    running.write(b"up\n")
    await running.signals.get()
    running.write(b"caught\n")
    return 5


@script("(while [ ! -e go ]; do :; done) & echo up; wait; echo done; exec sleep 600")
async def BUSY(running: Running) -> int:
    running.write(b"up\n")
    while not (running.folder / "work" / "go").exists():
        running.cpu += 0.01
        await asyncio.sleep(0.01)
    running.write(b"done\n")
    await asyncio.sleep(600)
    return 0


@script("echo once >>started; echo up; while [ ! -e go ]; do sleep 0.02; done; echo went")
async def GATE(running: Running) -> int:
    work = running.folder / "work"
    with (work / "started").open("a") as file:
        file.write("once\n")
    running.write(b"up\n")
    while not (work / "go").exists():
        await asyncio.sleep(0.01)
    running.write(b"went\n")
    return 0


@script("(while [ ! -e stop ]; do sleep 0.02; done; echo late) & echo main; exit 4")
async def BACKGROUND(running: Running) -> int:
    async def late(running: Running) -> int:
        while not (running.folder / "work" / "stop").exists():
            await asyncio.sleep(0.01)
        running.write(b"late\n")
        return 0

    running.start(late)
    running.write(b"main\n")
    return 4


@script("trap 'stty size' WINCH; stty size; while [ ! -e go ]; do sleep 0.02; done")
async def SIZE(running: Running) -> int:
    running.caught.add(signal.SIGWINCH)
    while not (running.folder / "work" / "go").exists():
        columns, rows = running.size()
        running.write(f"{rows} {columns}\n".encode())
        await running.signals.get()
    return 0


@script("i=0; while [ $i -lt 2000 ]; do echo line $i; echo error $i >&2; i=$((i+1)); done")
async def LINES(running: Running) -> int:
    for number in range(2000):
        running.write(f"line {number}\n".encode())
        running.error(f"error {number}\n".encode())
    return 0
