"""A sandbox host takes starts: each once, while it has room, whatever is repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.sandbox_hosts import JOB, ORG, RUN, Scheduler, Stage, eventually, host, of_host, view

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Claim, JobClaimed, JobFinished, Start, StepStarted, encode
from pitstop_common.streams import SPECS

KEY = f"{JOB}.1"


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


async def test_a_start_is_claimed_announced_run_and_nothing_of_it_is_left(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a") as here:
        await scheduler.start("echo one", "echo two")
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.host) == ("success", "host-a")
        assert await scheduler.kinds() == [
            "JobClaimed", "SandboxReady", "StepStarted", "StepFinished", "StepStarted", "StepFinished", "JobFinished",
        ]  # fmt: skip
        assert len(of_host(await scheduler.facts())) == 1
        assert await scheduler.output() == ["one", "two"]

        async def gone() -> bool:
            return not [*(tmp_path / "a" / "jobs").iterdir(), *(tmp_path / "a" / "gone").iterdir()]

        await eventually(gone, "the end of the folder")
        assert stage.ran == [f"{KEY}/step-1-1", f"{KEY}/step-2-1"]
        assert await scheduler.waiting() == 0
        assert here.value("pitstop_log_lines_total") >= 2
        assert here.value("pitstop_sandbox_start_seconds_count", backend="fake") == 1
        assert here.value("pitstop_message_process_seconds_count", handler="start", outcome="ack") == 1


async def test_two_hosts_run_each_job_once_and_none_more_than_it_has_room_for(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    url = nats_server.url()
    async with (
        host(url, tmp_path / "a", stage, host_id="host-a", capacity=2) as one,
        host(url, tmp_path / "b", stage, host_id="host-b", capacity=2) as two,
    ):
        for number in range(1, 9):
            start = await scheduler.start("wait all", number=number)
            await scheduler.again(start)

        async def full() -> bool:
            return len(stage.ran) == 4

        await eventually(full, "four jobs at once")
        for here in (one, two):
            assert here.value("pitstop_sandbox_jobs", state="running") == 2
        stage.open("all")
        for number in range(1, 9):
            assert (await scheduler.until(JobFinished, f"{RUN}-{number}")).result == "success"

        async def drained() -> bool:
            return await scheduler.waiting() == 0

        await eventually(drained, "the end of all starts")
    assert sorted(stage.ran) == sorted(f"{RUN}-{number}.1/step-1-1" for number in range(1, 9))
    for number in range(1, 9):
        claims = [f for f in await scheduler.facts() if isinstance(f, JobClaimed) and f.job == f"{RUN}-{number}"]
        assert len(claims) == 1


async def test_a_start_that_comes_again_is_acked_and_starts_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage) as here:
        start = await scheduler.start("wait go")
        await scheduler.until(StepStarted)

        async def handled(times: int) -> bool:
            return here.value("pitstop_message_process_seconds_count", handler="start", outcome="ack") == times

        await scheduler.again(start)
        await eventually(lambda: handled(2), "the ack of the second")
        stage.open("go")
        await scheduler.until(JobFinished)
        await scheduler.again(start)
        await eventually(lambda: handled(3), "the ack of the third")
        assert await scheduler.waiting() == 0
    assert stage.ran == [f"{KEY}/step-1-1"]
    assert (await scheduler.kinds()).count("JobFinished") == 1


async def test_a_start_that_another_host_has_claimed_is_dropped(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    await Bucket(bus, "claims").create(KEY, encode(Claim(host="other", incarnation="x", token="y")))
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage):
        await scheduler.start("echo no")

        async def drained() -> bool:
            return await scheduler.waiting() == 0

        await eventually(drained, "the ack")
        assert not list((tmp_path / "a" / "jobs").iterdir())
    assert (stage.ran, await scheduler.facts()) == ([], [])


@pytest.mark.parametrize(("status", "ends"), [("running", True), ("finished", False)])
async def test_a_claim_of_this_host_without_its_folder_is_said_to_be_lost_unless_it_has_ended(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path, status: str, ends: bool
) -> None:
    await Bucket(bus, "claims").create(KEY, encode(Claim(host="host-a", incarnation="earlier", token="y")))
    scheduler.views[JOB] = view("running" if status == "running" else "finished")
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a"):
        await scheduler.start("echo no")

        async def drained() -> bool:
            return await scheduler.waiting() == 0

        await eventually(drained, "the ack")
    assert stage.ran == []
    assert await scheduler.kinds() == (["JobClaimed", "JobFinished"] if ends else [])
    if ends:
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.reason) == ("error", "host_restarted")


async def test_a_job_without_its_spec_ends_with_a_reason(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_sandbox.hosting.attempts.SPEC_PATIENCE", 0.5)
    async with host(nats_server.url(), tmp_path / "a", Stage()):
        await scheduler.again(Start(org=ORG, run=RUN, job=JOB, attempt=1))
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.reason) == ("error", "spec_missing")
        assert await bus.js.stream_info(SPECS)

        async def gone() -> bool:
            return not list((tmp_path / "a" / "jobs").iterdir())

        await eventually(gone, "the end of the folder")


async def test_what_is_no_start_is_put_away_and_the_next_one_runs(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    async with host(nats_server.url(), tmp_path / "a", Stage()) as here:
        evil = Start(org=ORG, run=RUN, job="../../etc", attempt=1)
        for garbage in (b"", b"{", b"[]", encode(evil)):
            await bus.store(subjects.work("default"), garbage)
        await scheduler.start("echo fine")
        assert (await scheduler.until(JobFinished)).result == "success"
        assert here.value("pitstop_message_process_seconds_count", handler="start", outcome="term") == 4
        assert await scheduler.waiting() == 0


async def test_no_room_no_start_until_there_is(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, capacity=1):
        await scheduler.start("wait one")
        await scheduler.until(StepStarted)
        await scheduler.start("echo second", number=2)
        stage.open("one")
        await scheduler.until(JobFinished, f"{RUN}-2")
    kinds = [(type(f).__name__, f.job) for f in await scheduler.facts() if isinstance(f, JobClaimed | JobFinished)]
    assert kinds == [
        ("JobClaimed", JOB), ("JobFinished", JOB), ("JobClaimed", f"{RUN}-2"), ("JobFinished", f"{RUN}-2"),
    ]  # fmt: skip


async def test_a_claim_of_a_forgotten_run_gives_way_to_a_later_grant_and_to_no_other(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    """A request id that comes again after its run is forgotten makes the same job ids: its claim may still be there."""
    stage = Stage()
    old, new = "0.17.2.start", "0.905.0.start"
    claim = Claim(host="gone", incarnation="1", token="t", cause=old)
    await Bucket(bus, "claims").create(KEY, encode(claim))
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a"):
        start = await scheduler.start("echo again")  # of an unknown grant
        await scheduler.again(msgspec.structs.replace(start, cause=old))  # the one the claim is of, delivered again
        await eventually(lambda: nothing_waits(scheduler), "the ack of both")
        assert stage.ran == []
        await scheduler.again(msgspec.structs.replace(start, cause=new))
        assert (await scheduler.until(JobFinished)).result == "success"
        await scheduler.again(msgspec.structs.replace(start, cause=old))
        await scheduler.again(msgspec.structs.replace(start, cause=new))
        await eventually(lambda: nothing_waits(scheduler), "the ack of the others")
    assert stage.ran == [f"{KEY}/step-1-1"]
    kept = await scheduler.claim()
    assert kept is not None and (kept.host, kept.cause) == ("host-a", new)


async def nothing_waits(scheduler: Scheduler) -> bool:
    return await scheduler.waiting() == 0
