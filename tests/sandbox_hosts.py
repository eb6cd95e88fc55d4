"""Real sandbox hosts, in the test's own process or in theirs; the test plays the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import nats.micro
from nats.micro.request import Request
from tests.patience import PATIENCE

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.lifecycle import Runtime
from pitstop_common.messages import (
    AccessRequest,
    Claim,
    Command,
    HostFact,
    JobStatus,
    JobView,
    LogChunk,
    Message,
    SandboxRoom,
    Start,
    decode_chunk,
    decode_fact,
    encode,
)  # fmt: skip
from pitstop_common.pull import read_all
from pitstop_common.spec import JobSpec, PausePlan, RunSpec, Source, StepSpec
from pitstop_common.streams import IN, LOGS
from pitstop_sandbox.backends.fake import FakeBackend, FakeMachine
from pitstop_sandbox.backends.played import Program, Running
from pitstop_sandbox.backends.port import Spawn
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.service import serve

ORG, RUN = "acme", "abcdefghijkl"
JOB = f"{RUN}-1"
T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], what: str = "it", seconds: float = PATIENCE) -> T:
    """The first answer that is not false."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if found := await look():
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.02)


class Scheduler:
    """What a host needs of a scheduler, and what it can see of the host."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.views: dict[str, JobView] = {}
        self.asked: list[str] = []
        self.mute = False
        """Answers nothing."""

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answers svc.job from `views`; a job that is not there is running, in its first attempt."""
        service = await nats.micro.add_service(self.bus.nc, name="test-scheduler", version="0.0.1")
        await service.add_endpoint(name="job", subject=subjects.service("job"), handler=self._job)
        try:
            yield
        finally:
            await service.stop()

    async def _job(self, request: Request) -> None:
        job = msgspec.json.decode(request.data, type=AccessRequest).job
        self.asked.append(job)
        if self.mute:
            return
        await request.respond(encode(self.views.get(job) or view("running", job=job)))

    async def start(self, *commands: str, attempt: int = 1, number: int = 1, pause: PausePlan | None = None,
                    secrets: tuple[str, ...] = ()) -> Start:  # fmt: skip
        """Have a job run: its spec, then its start."""
        job = f"{RUN}-{number}"
        steps = tuple(StepSpec(index=at, name=f"step {at}", run=run) for at, run in enumerate(commands, 1))
        known = await read_spec(self.bus)
        jobs = {one.job: one for one in (known.jobs if known else ())}
        jobs[job] = JobSpec(job=job, key="build", name="build", steps=steps, pause=pause or PausePlan(),
                            secrets=secrets)  # fmt: skip
        spec = RunSpec(run=RUN, org=ORG, project="web", request="r1", actor="ada", jobs=tuple(jobs.values()),
                       source=Source())  # fmt: skip
        await self.bus.store(subjects.spec(ORG, RUN), encode(spec))
        return await self.again(Start(org=ORG, run=RUN, job=job, attempt=attempt, project="web", request="r1"))

    async def again(self, start: Start) -> Start:
        """The start as a message of its own."""
        await self.bus.store(subjects.work("default"), encode(start))
        return start

    async def tell(self, host: str, command: Command) -> None:
        """A command for a host."""
        await self.bus.store(subjects.work_of_host(host), encode(command))

    async def facts(self) -> list[Message]:
        """Everything hosts have said, without their room."""
        return [fact for fact in await self._all() if not isinstance(fact, SandboxRoom)]

    async def kinds(self, job: str = JOB) -> list[str]:
        """The types of a job's facts, in their order."""
        return [type(fact).__name__ for fact in await self.facts() if fact.job == job]

    async def rooms(self, host: str) -> list[int]:
        """What a host said of its room, in order."""
        return [one.capacity for one in await self._all() if isinstance(one, SandboxRoom) and one.host == host]

    async def until(self, kind: type[T], job: str = JOB, count: int = 1, seconds: float = PATIENCE) -> T:
        """The `count`th fact of a kind about a job, as soon as it is there."""

        async def look() -> T | None:
            found = [fact for fact in await self.facts() if isinstance(fact, kind) and fact.job == job]
            return found[count - 1] if len(found) >= count else None

        found = await eventually(look, f"{kind.__name__} number {count} of {job}", seconds)
        assert found is not None
        return found

    async def chunks(self, job: str = JOB) -> list[LogChunk]:
        """A job's log as it is stored."""
        return [decode_chunk(one.data) for one in await read_all(self.bus, LOGS, subjects.logs(ORG, RUN, job))]

    async def output(self, job: str = JOB) -> list[str]:
        """The lines of a job's steps, each of them once, as a reader shows them."""
        shown: dict[tuple[int, int], int] = defaultdict(int)
        lines: list[str] = []
        for chunk in await self.chunks(job):
            had = shown[chunk.step, chunk.tries]
            if chunk.kind == "output":
                assert chunk.first <= had, "lines are missing"
                lines += chunk.lines[had - chunk.first :]
                shown[chunk.step, chunk.tries] = max(had, chunk.first + len(chunk.lines))
        return lines

    async def claim(self, key: str = f"{JOB}.1") -> Claim | None:
        """Who runs an attempt."""
        entry = await Bucket(self.bus, "claims").get(key)
        return msgspec.json.decode(entry.value, type=Claim) if entry and entry.value else None

    async def waiting(self) -> int:
        """Starts and commands that nobody has acked."""
        return int((await self.bus.js.stream_info("WORK")).state.messages)

    async def _all(self) -> list[Message]:
        return [decode_fact(one.data) for one in await read_all(self.bus, IN, subjects.facts_of(0))]


def view(status: JobStatus, *, job: str = JOB, attempt: int = 1, **fields: Any) -> JobView:
    """A job as the log has it."""
    return JobView(job=job, run=RUN, org=ORG, project="web", key="build", pool="default", status=status,
                   attempt=attempt, **fields)  # fmt: skip


async def read_spec(bus: Bus) -> RunSpec | None:
    """The run as it is stored."""
    msg = await bus.request(f"$JS.API.DIRECT.GET.SPECS.{subjects.spec(ORG, RUN)}")
    return msgspec.json.decode(msg.data, type=RunSpec) if "Nats-Sequence" in (msg.headers or {}) else None


def of_host(facts: list[Message]) -> set[tuple[str, str]]:
    """Which hosts and incarnations said these."""
    return {(fact.host, fact.incarnation) for fact in facts if isinstance(fact, HostFact)}


class Stage:
    """Plays the programs of steps: `echo TEXT`, `show VARIABLE`, `exit N`, and `wait NAME` until the test opens that
    gate."""

    def __init__(self) -> None:
        self.machine = FakeMachine(self._resolve)
        self.ran: list[str] = []
        self._gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def open(self, gate: str) -> None:
        """Let everything that waits for this go on."""
        self._gates[gate].set()

    def _resolve(self, _request: Spawn) -> Program:
        return self._play

    async def _play(self, running: Running) -> int:
        self.ran.append(f"{running.folder.name}/{running.request.id}")
        script = running.folder / "job" / "script" / Path(running.request.argv[-1]).name
        for line in script.read_text().splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "echo":
                running.write(rest.encode() + b"\n")
            elif verb == "show":
                running.write(running.request.env[rest].encode() + b"\n")
            elif verb == "wait":
                await self._gates[rest].wait()
            elif verb == "exit":
                return int(rest)
        return 0


class Here:
    """A host inside the test's process."""

    def __init__(self, runtime: Runtime, task: asyncio.Task[None]) -> None:
        self.runtime = runtime
        self.task = task

    def value(self, name: str, **labels: str) -> float:
        """A metric now."""
        return self.runtime.metrics.registry.get_sample_value(name, labels) or 0.0

    async def stop(self) -> None:
        """As at SIGTERM."""
        self.runtime.stop()
        await asyncio.wait_for(self.task, PATIENCE)


@contextlib.asynccontextmanager
async def host(url: str, folder: Path, stage: Stage | None = None, **settings: Any) -> AsyncIterator[Here]:
    """A host that works for the length of a block, and ends as at SIGTERM."""
    config = SandboxConfig(nats_url=url, dir=folder, **{"sandbox": "fake", "jobs_at_stop": "end", **settings})
    runtime = Runtime("sandbox", config)
    backend = FakeBackend(stage.machine) if stage else None
    async with runtime.started():
        task = asyncio.ensure_future(serve(runtime, config, backend))
        here = Here(runtime, task)
        try:

            async def ready() -> bool:
                return task.done() or here.value("pitstop_ready") == 1

            await eventually(ready, "the host's start")
            yield here
        finally:
            if not task.done():
                await here.stop()
            await task


class There:
    """A host in a process of its own."""

    def __init__(self, url: str, folder: Path, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self._ready = folder / "ready.json"
        self._log = folder / "log"
        self._env = {
            "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": url, "PITSTOP_DIR": str(folder / "state"),
            "PITSTOP_READY_FILE": str(self._ready), "PITSTOP_HOST_ID": "host-a",
            **{f"PITSTOP_{name.upper()}": value for name, value in settings.items()},
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> dict[str, str]:
        """Returns what it said when it was ready."""
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pitstop_sandbox"], env=self._env, stdout=log, stderr=log, cwd=self._log.parent
            )
        process = self._process

        async def ready() -> bool:
            assert process.poll() is None, self.words()
            return self._ready.exists()

        await eventually(ready, "the host's start")
        said: dict[str, str] = json.loads(self._ready.read_text())
        return said

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait. Returns the exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return await asyncio.wait_for(asyncio.to_thread(process.wait), 35)

    def words(self) -> str:
        """Its log."""
        return self._log.read_text(errors="replace")
