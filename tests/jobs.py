"""Help for tests that run real jobs: sinks that remember, people that enter, and a job with few words."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from tests.patience import PATIENCE

from pitstop_common.messages import JobReport, LogChunk, SshAddress, encode
from pitstop_common.spec import JobSpec, PausePlan, RunSpec, SessionPolicy, Source, StepSpec
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import Exit, Process
from pitstop_sandbox.outbox import Identity
from pitstop_sandbox.ports import Pty, Session
from pitstop_sandbox.runner import JobRunner
from pitstop_sandbox.settings import Settings
from pitstop_sandbox.source.wish import CheckoutLimits

JOB = "aaaaaaaaaaaa-1"
SETTINGS = Settings(checkout=CheckoutLimits(local=True), grace=0.5)
DEADLINE = PATIENCE
_OF_THE_SENDING = {"age": 0, "incarnation": ""}


class Store:
    """A FactSink and LogSink on a file: what is in it is stored, whoever wrote it is killed or not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def publish(self, *said: Any) -> None:
        """A fact, or org, run and chunk."""
        line = b"F" + encode(said[0]) if len(said) == 1 else b"L" + encode(said[2])
        with self._path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line + b"\n")

    def _read(self, kind: str) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        whole = self._path.read_bytes().rpartition(b"\n")[0]  # the last line may be on its way
        lines = whole.decode().splitlines()
        return [json.loads(line[1:]) for line in lines if line.startswith(kind)]

    def facts(self) -> list[dict[str, Any]]:
        """Each fact once, in the order first stored; a fact that came again must be the same."""
        seen: dict[str, dict[str, Any]] = {}
        for fact in self._read("F"):
            known = seen.setdefault(fact["id"], fact)
            assert {**known, **_OF_THE_SENDING} == {**fact, **_OF_THE_SENDING}
        return list(seen.values())

    def types(self) -> list[str]:
        """The types of all facts in order."""
        return [fact["type"] for fact in self.facts()]

    def last(self, type_: str) -> dict[str, Any]:
        """The newest fact of a type."""
        return [fact for fact in self.facts() if fact["type"] == type_][-1]

    def report(self) -> JobReport:
        """The report of the job's end."""
        return msgspec.convert(self.last("job.finished")["report"], JobReport)

    def chunks(self) -> list[LogChunk]:
        """All chunks as stored."""
        return [msgspec.convert(chunk, LogChunk) for chunk in self._read("L")]

    def log(self, step: int, tries: int = 1) -> list[str]:
        """The lines of a try as a reader has them: those it had before are dropped, and none may be missing."""
        lines: list[str] = []
        for chunk in self.chunks():
            if (chunk.step, chunk.tries) == (step, tries):
                assert chunk.first <= len(lines), "lines are missing"
                assert list(chunk.lines[: len(lines) - chunk.first]) == lines[chunk.first :][: len(chunk.lines)]
                lines += chunk.lines[len(lines) - chunk.first :]
        return lines


def run_of(*steps: StepSpec | str, pause: PausePlan | None = None, source: Source | None = None,
           session: SessionPolicy | None = None, **job: Any) -> RunSpec:  # fmt: skip
    """A run of one job. A step may be just its script."""
    specs = tuple(
        msgspec.structs.replace(step, index=number)
        if isinstance(step, StepSpec)
        else StepSpec(index=number, name=f"step {number}", run=step)
        for number, step in enumerate(steps, 1)
    )
    spec = JobSpec(job=JOB, key="build", name="build", steps=specs, pause=pause or PausePlan(), **job)
    return RunSpec(
        run=JOB.partition("-")[0], org="acme", project="web", request="r1", actor="ada", jobs=(spec,),
        source=source or Source(), session=session or SessionPolicy(),
    )  # fmt: skip


def step(run: str = "", **fields: Any) -> StepSpec:
    """A step with more than its script."""
    return StepSpec(index=1, name=fields.pop("name", "a step"), run=run, **fields)


def address(job: str) -> SshAddress:
    """How to enter, for tests that do not."""
    return SshAddress(host="relay", port=2222, user=job, command=f"ssh -p 2222 {job}@relay")


class Driven:
    """A runner that runs, its store, and one person."""

    def __init__(self, run: RunSpec, folder: Path, backend: NamespacesBackend, **options: Any) -> None:
        self.folder = folder
        self.store = Store(folder.parent / f"{folder.name}.store")
        options = {"settings": SETTINGS, **options}
        self.runner = JobRunner(
            run, run.jobs[0], 1, folder, backend, self.store, self.store, Identity("host", "one"), address, **options
        )
        self.task = asyncio.create_task(self.runner.run())

    async def until(self, status: str) -> None:
        """Returns when the job has that status; fails when it ends before."""
        async with asyncio.timeout(DEADLINE):
            while self.runner.state.status.value != status:
                assert not self.task.done(), f"the job ended before it was {status}: {self.store.types()}"
                reached = self.runner._until(lambda: self.runner.state.status.value == status)
                waiting = asyncio.ensure_future(reached)
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if self.task.done():
                    self.task.result()
                    break

    async def end(self) -> None:
        """Returns when the job has ended."""
        async with asyncio.timeout(DEADLINE):
            await self.task

    async def enter(self, name: str = "s1") -> Session:
        """Somebody comes in."""
        session = Session(id=name, user="ada", fingerprint="SHA256:x", client="192.0.2.1:5000")
        await self.runner.opened(session)
        return session

    async def exec(self, session: Session, command: str, env: dict[str, str] | None = None) -> tuple[Exit, str]:
        """`ssh job command`."""
        entry = await self.runner.entry(session, interactive=False)
        process = await self.runner.spawn(session, [entry.shell, "-c", command], entry, pty=None, env=env or {})
        stdin, stdout, stderr = process.fds
        os.close(stdin)
        said = await asyncio.gather(asyncio.to_thread(_drain, stdout), asyncio.to_thread(_drain, stderr))
        async with asyncio.timeout(DEADLINE):
            return await process.wait(), "".join(said)

    async def shell(self, session: Session, keys: str) -> str:
        """An interactive shell whose user types `keys` and then leaves by itself. Returns what was shown."""
        entry = await self.runner.entry(session, interactive=True)
        process = await self.runner.spawn(session, [entry.shell], entry, pty=Pty(), env={"TERM": "dumb"})
        self.runner.shell_started(session, process, self)
        (master,) = process.fds
        os.write(master, f"{keys}\nexit\n".encode())
        shown = await asyncio.to_thread(_drain, master)
        await self.ended(session, process)
        return entry.notice + shown

    async def alive(self) -> bool:
        """As a connection says it."""
        return True

    def drop(self) -> None:
        """As a connection is told."""

    async def ended(self, session: Session, process: Process) -> None:
        """The shell and its connection end as by `exit`."""
        async with asyncio.timeout(DEADLINE):
            await process.wait()
        await self.runner.shell_ended(session, process, by_itself=True)
        await self.runner.closed(session, "exit")


@contextlib.asynccontextmanager
async def driven(run: RunSpec, folder: Path, **options: Any) -> AsyncIterator[Driven]:
    """A job on the namespaces backend. Whatever happens, nothing of it is left."""
    backend = options.pop("backend", None) or NamespacesBackend()
    job = Driven(run, folder, backend, **options)
    try:
        yield job
    finally:
        job.task.cancel()
        await asyncio.gather(job.task, return_exceptions=True)
        left = await backend.adopt(job.runner._spec())
        if left is not None:
            await left.remove()
        await backend.aclose()


async def until(reached: Callable[[], bool]) -> None:
    """Returns when something of another process is so. It tells nobody, so this looks."""
    async with asyncio.timeout(DEADLINE):
        while not reached():
            await asyncio.sleep(0.01)


def _drain(fd: int) -> str:
    data = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(fd, 1 << 16):
            data += chunk
    os.close(fd)
    return data.decode("utf-8", "replace")


def facts_of(store: Store, type_: str) -> list[dict[str, Any]]:
    """All facts of a type."""
    return [fact for fact in store.facts() if fact["type"] == type_]
