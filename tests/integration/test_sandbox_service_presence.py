"""What others see of a host: its room, its heartbeat; and what it does when nobody can see it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.sandbox_hosts import JOB, Scheduler, Stage, eventually, host

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Heartbeat, JobFinished, StepFinished, StepStarted


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


async def heartbeat(bus: Bus, host_id: str) -> Heartbeat | None:
    entry = await Bucket(bus, "hosts").get(host_id)
    return msgspec.json.decode(entry.value, type=Heartbeat) if entry and entry.value else None


async def restart(server: EmbeddedServer) -> None:
    await server.stop(signal.SIGKILL)
    await server.start()


async def test_room_is_said_at_the_start_at_each_return_of_nats_and_at_the_end(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a", capacity=3) as here:

        async def said(times: int) -> bool:
            return await scheduler.rooms("host-a") == [3] * times

        await eventually(lambda: said(1), "the first room")
        assert here.value("pitstop_sandbox_capacity") == 3
        await restart(nats_server)
        await eventually(lambda: said(2), "the room after the restart")
        await here.stop()
    assert await scheduler.rooms("host-a") == [3, 3, 0]


async def test_room_is_said_again_once_a_minute(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_sandbox.hosting.presence.ROOM_EVERY", 0.3)
    async with host(nats_server.url(), tmp_path / "a", Stage(), host_id="host-a", capacity=2):

        async def said() -> bool:
            return (await scheduler.rooms("host-a"))[:3] == [2, 2, 2]

        await eventually(said, "three rooms")


async def test_the_heartbeat_counts_up_lists_the_jobs_and_goes_with_the_host(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a", heartbeat_interval=0.05) as here:
        await scheduler.start("wait go")

        async def listed() -> Heartbeat | None:
            beat = await heartbeat(bus, "host-a")
            return beat if beat and beat.jobs else None

        one = await eventually(listed, "the job in the heartbeat")
        assert one is not None
        assert (one.host, one.pool, one.capacity, one.jobs, one.draining) == (
            "host-a", "default", 4, ((JOB, 1),), False,
        )  # fmt: skip

        async def more() -> bool:
            beat = await heartbeat(bus, "host-a")
            return beat is not None and beat.beat > one.beat and beat.incarnation == one.incarnation

        await eventually(more, "the next beat")
        await here.stop()
    assert await heartbeat(bus, "host-a") is None
    assert (await scheduler.until(JobFinished)).reason == "host_stopped"


async def test_a_host_that_leaves_jobs_behind_leaves_its_last_heartbeat(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a", jobs_at_stop="leave"):
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
    beat = await heartbeat(bus, "host-a")
    assert beat is not None
    assert (beat.draining, beat.capacity, beat.jobs) == (True, 4, ((JOB, 1),))
    assert len(stage.machine.sandboxes) == 1
    for sandbox in list(stage.machine.sandboxes.values()):
        await sandbox.remove()


async def test_a_restart_of_nats_in_the_middle_of_a_job_loses_and_repeats_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a"):
        await scheduler.start("echo one\nwait two\necho two", "echo three\nwait four\necho four")
        await scheduler.until(StepStarted)
        await nats_server.stop(signal.SIGKILL)
        stage.open("two")
        await nats_server.start()
        await scheduler.until(StepFinished)
        stage.open("four")
        assert (await scheduler.until(JobFinished)).result == "success"
        assert await scheduler.output() == ["one", "two", "three", "four"]
    assert await scheduler.kinds() == [
        "JobClaimed", "SandboxReady", "StepStarted", "StepFinished", "StepStarted", "StepFinished", "JobFinished",
    ]  # fmt: skip
    assert len(stage.ran) == 2


async def test_a_host_that_nobody_can_see_ends_its_jobs_and_says_so_later(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    settings = {"heartbeat_interval": 0.1, "orphan_grace": 1.0}
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a", **settings):
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        await nats_server.stop(signal.SIGKILL)

        async def nothing_left() -> bool:
            return not stage.machine.sandboxes

        await eventually(nothing_left, "the end of the job without NATS")
        await nats_server.start()
        ended = await scheduler.until(JobFinished)
        assert (ended.result, ended.reason) == ("error", "host_isolated")
        await scheduler.start("echo again", number=2)
        assert (await scheduler.until(JobFinished, f"{JOB[:-1]}2")).result == "success"


async def test_an_outage_shorter_than_the_grace_ends_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    settings = {"heartbeat_interval": 0.1, "orphan_grace": 30.0}
    async with host(nats_server.url(), tmp_path / "a", stage, host_id="host-a", **settings) as here:
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
        await nats_server.stop(signal.SIGKILL)

        async def noticed() -> bool:
            return here.value("pitstop_nats_connected") == 0

        await eventually(noticed, "the loss")
        await nats_server.start()
        stage.open("go")
        assert (await scheduler.until(JobFinished)).result == "success"


async def test_a_host_that_stops_hands_starts_back_to_the_others(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage = Stage()
    url = nats_server.url()
    async with host(url, tmp_path / "a", stage, host_id="host-a") as one:
        stopping = asyncio.ensure_future(one.stop())
        for number in range(1, 6):
            await scheduler.start("echo x", number=number)
        await stopping
    begun = asyncio.get_running_loop().time()
    async with host(url, tmp_path / "b", stage, host_id="host-b"):
        for number in range(1, 6):
            ended = await scheduler.until(JobFinished, f"{JOB[:-1]}{number}")
            assert ended.result == "success" or ended.reason == "host_stopped"
    assert asyncio.get_running_loop().time() - begun < 10, "a start waited for its ack wait to pass"
    assert len(stage.ran) == len(set(stage.ran))
