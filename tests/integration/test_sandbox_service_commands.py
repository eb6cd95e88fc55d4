"""What the scheduler tells a host is done once, whether its job is there, has ended, or has not come yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.sandbox_hosts import JOB, ORG, RUN, Scheduler, Stage, eventually, host, view

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Claim, JobFinished, JobPaused, JobResumed, Resume, StepStarted, Stop, Warn, encode
from pitstop_common.spec import PausePlan

KEY = f"{JOB}.1"
STOP = Stop(org=ORG, run=RUN, job=JOB, attempt=1, result="cancellation", reason="cancelled", notice="bye", cause="c1")


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


async def drained(scheduler: Scheduler) -> None:
    async def empty() -> bool:
        return await scheduler.waiting() == 0

    await eventually(empty, "the ack of all work")


async def test_stop_ends_a_job_with_the_result_that_the_log_gave_it(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a"):
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        await scheduler.tell("host-a", STOP)
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.reason, ended.cause) == ("cancellation", "cancelled", "c1")
        assert not stage.machine.sandboxes
        await scheduler.tell("host-a", STOP)
        await drained(scheduler)
    assert (await scheduler.kinds()).count("JobFinished") == 1


async def test_a_stop_that_comes_before_its_start_keeps_it_from_ever_starting(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    url = nats_server.url()
    async with (
        host(url, tmp_path / "a", stage, host_id="host-a") as here,
        host(url, tmp_path / "b", stage, host_id="host-b"),
    ):
        await scheduler.tell("host-a", STOP)
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.host) == ("cancellation", "host-a")
        await here.stop()
        await scheduler.start("echo never")
        await drained(scheduler)
    assert stage.ran == []
    assert await scheduler.kinds() == ["JobClaimed", "JobFinished"]


@pytest.mark.parametrize(("known", "ends"), [("stopping", True), ("finished", False)])
async def test_a_stop_for_a_claim_whose_folder_is_gone_says_the_end_when_the_log_waits_for_it(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path, known: str, ends: bool
) -> None:
    await Bucket(bus, "claims").create(KEY, encode(Claim(host="host-a", incarnation="earlier", token="t")))
    scheduler.views[JOB] = view("stopping" if ends else "finished", result="cancellation")
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a"):
        await scheduler.tell("host-a", STOP)
        await drained(scheduler)
    assert await scheduler.kinds() == (["JobClaimed", "JobFinished"] if ends else [])


async def test_stop_for_the_claim_of_another_host_does_nothing(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    await Bucket(bus, "claims").create(KEY, encode(Claim(host="other", incarnation="x", token="t")))
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a"):
        await scheduler.tell("host-a", STOP)
        await drained(scheduler)
    assert await scheduler.facts() == []


async def test_resume_ends_a_pause_and_is_harmless_twice_or_late(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    resume = Resume(org=ORG, run=RUN, job=JOB, attempt=1, reason="idle", cause="c2")
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a") as here:
        await scheduler.start("exit 3", pause=PausePlan(on_failure=True))
        await scheduler.until(JobPaused)

        async def paused() -> bool:
            return here.value("pitstop_sandbox_jobs", state="paused") == 1

        await eventually(paused, "the count of the paused job")
        for _ in range(2):
            await scheduler.tell("host-a", resume)
        assert (await scheduler.until(JobResumed)).choice == "expired"
        assert (await scheduler.until(JobFinished)).result == "failure"
        await scheduler.tell("host-a", resume)
        await drained(scheduler)
    assert (await scheduler.kinds()).count("JobResumed") == 1


async def test_what_is_no_command_is_put_away_and_the_next_one_done(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a") as here:
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        for garbage in (b"", b"{", b'{"type":"start"}'):
            await bus.store(subjects.work_of_host("host-a"), garbage)
        await scheduler.tell("host-a", STOP)
        await scheduler.until(JobFinished)
        await drained(scheduler)
        assert here.value("pitstop_message_process_seconds_count", handler="command", outcome="term") == 3


async def test_a_warning_resumes_and_ends_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a") as here:
        await scheduler.start("exit 1", pause=PausePlan(on_failure=True))
        await scheduler.until(JobPaused)
        for left in (120.0, 0.0, -5.0):
            warn = Warn(org=ORG, run=RUN, job=JOB, attempt=1, reason="idle", left=left, notice="ends soon")
            await scheduler.tell("host-a", warn)
        await drained(scheduler)
        assert here.value("pitstop_sandbox_jobs", state="paused") == 1
        assert (await scheduler.kinds())[-1] == "JobPaused"
        await scheduler.tell("host-a", STOP)
        assert (await scheduler.until(JobFinished)).reason == "cancelled"
    assert "JobResumed" not in await scheduler.kinds()
