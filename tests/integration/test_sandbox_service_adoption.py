"""A host process ends, or is killed, wherever it is; the next one on its folder goes on, and nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sandbox_hosts import JOB, ORG, RUN, Scheduler, Stage, eventually, host, view

from pitstop_common import streams
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.lifecycle import Runtime
from pitstop_common.messages import JobClaimed, JobFinished, JobPaused, StepStarted, Stop
from pitstop_common.spec import PausePlan
from pitstop_sandbox.backends.fake import FakeBackend
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.service import serve

KEY = f"{JOB}.1"


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


async def test_the_next_process_claims_anew_and_goes_on(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("echo one\nwait two\necho two", "echo three")
        await scheduler.until(StepStarted)
    async with again():
        await scheduler.until(JobClaimed, count=2)
        stage.open("two")
        ended = await scheduler.until(JobFinished)
    assert ended.result == "success"
    first, second = [fact for fact in await scheduler.facts() if isinstance(fact, JobClaimed)]
    assert (first.host, ended.host, ended.incarnation) == (second.host, second.host, second.incarnation)
    assert first.incarnation != second.incarnation
    assert await scheduler.output() == ["one", "two", "three"]
    assert stage.ran == [f"{KEY}/step-1-1", f"{KEY}/step-2-1"]
    assert set(scheduler.asked) == {JOB}


async def test_a_paused_job_is_still_paused_for_the_next_process(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    settings: dict[str, Any] = {"host_id": "host-a", "jobs_at_stop": "leave"}
    async with host(nats_server.url(), tmp_path / "a", stage, **settings):
        await scheduler.start("exit 1", pause=PausePlan(on_failure=True))
        await scheduler.until(JobPaused)
    async with host(nats_server.url(), tmp_path / "a", stage, **settings) as here:

        async def paused() -> bool:
            return here.value("pitstop_sandbox_jobs", state="paused") == 1

        await eventually(paused, "the adoption of the paused job")
        await scheduler.tell(
            "host-a", Stop(org=ORG, run=RUN, job=JOB, attempt=1, result="failure", reason="idle", notice="bye")
        )
        assert (await scheduler.until(JobFinished)).result == "failure"


@pytest.mark.parametrize(
    ("known", "says"),
    [
        (view("running", attempt=2), ["JobClaimed"]),
        (view("finished", result="error"), ["JobClaimed"]),
        (view("stopping", result="timeout", reason="idle"), ["JobClaimed", "JobClaimed", "JobFinished"]),
    ],
    ids=["superseded", "finished", "stopping"],
)
async def test_an_attempt_that_the_log_has_left_behind_is_ended(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path, known: Any, says: list[str]
) -> None:
    stage = Stage()
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("wait for-ever", "echo never")
        await scheduler.until(StepStarted)
    scheduler.views[JOB] = known
    async with again():

        async def gone() -> bool:
            return not stage.machine.sandboxes and not list((tmp_path / "a" / "jobs").iterdir())

        await eventually(gone, "the end of the old attempt")
    assert stage.ran == [f"{KEY}/step-1-1"]
    kinds = [kind for kind in await scheduler.kinds() if kind in ("JobClaimed", "JobFinished")]
    assert [kind for kind in kinds if kind == "JobClaimed"] == [kind for kind in says if kind == "JobClaimed"]
    if known.status == "stopping":
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.reason) == ("timeout", "idle")


async def test_a_sandbox_that_went_away_in_between_ends_its_job(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
    for sandbox in list(stage.machine.sandboxes.values()):
        await sandbox.remove()
    async with again():
        ended = await scheduler.until(JobFinished)
    assert (ended.result, ended.reason) == ("error", "host_restarted")


async def test_a_journal_that_cannot_be_read_ends_the_job_and_its_sandbox(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
    (tmp_path / "a" / "jobs" / KEY / "journal").write_bytes(b"of another version")
    async with again() as here:
        ended = await scheduler.until(JobFinished)

        async def gone() -> bool:
            return not list((tmp_path / "a" / "jobs").iterdir())

        await eventually(gone, "the end of the folder")
        assert here.value("pitstop_sandbox_errors_total", op="adopt", error_type="host_failed") == 1
    assert (ended.result, ended.reason) == ("error", "host_restarted")
    assert not stage.machine.sandboxes


async def test_adoption_waits_for_a_scheduler(nats_server: EmbeddedServer, bus: Bus, tmp_path: Path) -> None:
    stage = Stage()
    scheduler = Scheduler(bus)
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
    async with again() as here:
        stage.open("go")

        async def held() -> bool:
            return here.value("pitstop_sandbox_jobs", state="running") == 1

        await eventually(held, "the room that the job takes")
        assert (await scheduler.kinds()).count("JobClaimed") == 1
        async with scheduler.answering():
            await scheduler.until(JobFinished)
    assert stage.ran == [f"{KEY}/step-1-1"]


async def test_without_any_scheduler_it_is_adopted_in_the_end(
    nats_server: EmbeddedServer, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_sandbox.hosting.attempts.ASK_PATIENCE", 0.5)
    stage = Stage()
    scheduler = Scheduler(bus)
    again = functools.partial(host, nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave")
    async with again():
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
    async with again():
        stage.open("go")
        assert (await scheduler.until(JobFinished)).result == "success"


class Doom:
    """Ends a process's dealings with NATS for ever, at one of them: what `kill -9` is to those who watch."""

    def __init__(self, bus: Bus, at: int, *, after: bool) -> None:
        self.dead = asyncio.Event()
        self._left = at
        self._after = after
        self._bus = bus
        self._publish = bus.publish
        bus.publish = self._doomed(bus.publish)  # type: ignore[method-assign]

    def lift(self) -> None:
        """For the end of the connection."""
        self._bus.publish = self._publish  # type: ignore[method-assign]

    def _doomed(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def doomed(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self.dead.is_set() or (self._left == 0 and not self._after):
                await self._die()
            now = self._left == 0
            answer = await call(*args, **options)
            if now or self.dead.is_set():
                await self._die()
            return answer

        return doomed

    async def _die(self) -> None:
        self.dead.set()
        await asyncio.Event().wait()


async def killed_at(
    url: str, folder: Path, stage: Stage, at: int, *, after: bool, over: Callable[[], Awaitable[bool]]
) -> bool:
    """Let a host live until its `at`th dealing with NATS. False: it had not so many before the job was over."""
    config = SandboxConfig(nats_url=url, dir=folder, host_id="host-a", heartbeat_interval=1000, jobs_at_stop="leave")
    runtime = Runtime("sandbox", config)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(runtime.started())
        doom = Doom(runtime.bus, at, after=after)
        task = asyncio.ensure_future(serve(runtime, config, FakeBackend(stage.machine)))
        while not doom.dead.is_set() and not await over():
            assert not task.done()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(doom.dead.wait(), 0.02)
        died = doom.dead.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        doom.lift()
        return died


async def test_a_kill_at_any_dealing_with_nats_loses_nothing_and_repeats_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def soon(pool: str) -> Any:
        return streams.pool_consumer(pool).evolve(ack_wait=0.5)

    monkeypatch.setattr("pitstop_sandbox.hosting.starts.pool_consumer", soon)
    for at in range(1, 100):
        job, stage, folder = f"{RUN}-{at}", Stage(), tmp_path / str(at)
        folder.mkdir()
        await scheduler.start(f"echo {at}", "echo last", number=at)

        async def over(job: str = job) -> bool:
            return "JobFinished" in await scheduler.kinds(job)

        died = await killed_at(nats_server.url(), folder, stage, at, after=at % 2 == 0, over=over)
        async with host(nats_server.url(), folder, stage, host_id="host-a"):
            ended = await scheduler.until(JobFinished, job)

            async def settled(folder: Path = folder) -> bool:
                return not list((folder / "jobs").iterdir()) and await scheduler.waiting() == 0

            await eventually(settled, f"the end of everything after a kill at {at}")
        assert ended.result == "success", f"killed at {at}: {ended}"
        assert stage.ran == [f"{job}.1/step-1-1", f"{job}.1/step-2-1"], f"killed at {at}"
        assert await scheduler.output(job) == [str(at), "last"]
        assert [kind for kind in await scheduler.kinds(job) if kind != "JobClaimed"] == [
            "SandboxReady", "StepStarted", "StepFinished", "StepStarted", "StepFinished", "JobFinished",
        ], f"killed at {at}"  # fmt: skip
        if not died:
            break
    else:
        raise AssertionError("it never came to an end alive")
    assert at > 15, "the host has more dealings with NATS than that"
