"""What hosts hold and the log does not want: the janitor finds it, and the host sweeps it, after it asked the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.janitors import eventually as soon
from tests.janitors import janitor, value
from tests.sandbox_hosts import JOB, ORG, RUN, Scheduler, Stage, eventually, host, view

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Heartbeat, JobFinished, JobStatus, StepStarted, encode
from pitstop_common.telemetry import ServiceMetrics
from pitstop_janitor.collectors.inventory import Inventory
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics

KEY = f"{JOB}.1"
CONFIG = JanitorConfig(nats_url="unused", inventory_interval=30, inventory_grace=60)


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


class World:
    """A janitor's collector whose clock the test moves, and the read models."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.now = bus, 1000.0
        self.hosts, self.runs = Bucket(bus, "hosts"), Bucket(bus, "runs")
        self.registry = ServiceMetrics("janitor").registry
        self.inventory = Inventory(bus, JanitorMetrics(self.registry), CONFIG, OpenJobs(bus), lambda: self.now)

    async def model(self, status: JobStatus, attempt: int = 1) -> None:
        """What the read model of the job says."""
        await self.runs.put(f"{ORG}.{RUN}.{JOB}", encode(view(status, attempt=attempt)))

    async def passes(self, seconds: int) -> int:
        """Let time pass, with a look each half minute; how much was freed."""
        freed = 0
        for _ in range(seconds // 30):
            self.now += 30
            freed += (await self.inventory.sweep()).freed
        return freed

    def orphans(self, kind: str) -> float:
        return self.registry.get_sample_value("pitstop_janitor_orphans", {"kind": kind}) or 0.0

    def reclaimed(self, kind: str, reason: str) -> float:
        labels = {"kind": kind, "reason": reason}
        return self.registry.get_sample_value("pitstop_janitor_reclaimed_total", labels) or 0.0

    async def listed(self, host: str, *keys: str) -> None:
        """Until the heartbeat of a host lists just these attempts."""

        async def look() -> bool:
            entry = await self.hosts.get(host)
            beat = msgspec.json.decode(entry.value, type=Heartbeat) if entry and entry.value else None
            return beat is not None and {f"{job}.{attempt}" for job, attempt in beat.jobs} == set(keys)

        await eventually(look, "the inventory in the heartbeat")


FAST: dict[str, Any] = {"host_id": "host-a", "heartbeat_interval": 0.05}


async def test_an_attempt_that_the_log_has_ended_is_ended_on_its_host(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    """As when the command to stop it was lost."""
    world, stage = World(bus), Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, **FAST):
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        await world.model("finished")
        scheduler.views[JOB] = view("finished", result="timeout", reason="idle")
        await world.listed("host-a", KEY)
        assert await world.passes(60) == 0
        assert world.orphans("attempt") == 1
        assert stage.machine.sandboxes
        assert await world.passes(30) == 1
        assert world.reclaimed("attempt", "ended") == 1

        async def gone() -> bool:
            return not stage.machine.sandboxes and not list((tmp_path / "a" / "jobs").iterdir())

        await eventually(gone, "the end of the attempt")
        await world.listed("host-a")
        assert await world.passes(120) == 0
        assert world.orphans("attempt") == 0


@pytest.mark.parametrize("known", [view("running"), view("paused"), view("starting")], ids=lambda one: one.status)
async def test_the_host_ends_nothing_that_the_log_still_wants(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path, known: Any
) -> None:
    """The read model is missing; the log is right."""
    world, stage = World(bus), Stage()
    scheduler.views[JOB] = known
    async with host(nats_server.url(), tmp_path / "a", stage, **FAST):
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
        await world.listed("host-a", KEY)
        assert await world.passes(150) == 0
        assert JOB in scheduler.asked
        stage.open("go")
        assert (await scheduler.until(JobFinished)).result == "success"


async def test_what_is_wanted_is_never_asked_about(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    world, stage = World(bus), Stage()
    await world.model("running")
    async with host(nats_server.url(), tmp_path / "a", stage, **FAST):
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
        await world.listed("host-a", KEY)
        assert await world.passes(300) == 0
        assert scheduler.asked == []
        stage.open("go")
        await scheduler.until(JobFinished)


async def test_a_superseded_attempt_is_ended_and_a_host_that_does_not_answer_is_asked_again(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_janitor.collectors.inventory._ANSWER_SECONDS", 0.2)
    world, stage = World(bus), Stage()
    beat = Heartbeat(host="mute", incarnation="i1", pool="default", capacity=2, beat=1, jobs=((JOB, 1),))
    await world.hosts.put("mute", encode(beat))
    await world.model("running", attempt=2)
    scheduler.views[JOB] = view("running", attempt=2)
    async with host(nats_server.url(), tmp_path / "a", stage, **FAST):
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        await world.listed("host-a", KEY)
        assert await world.passes(90) == 1
        assert world.reclaimed("attempt", "superseded") == 1
        assert world.orphans("attempt") == 2
        await world.listed("host-a")
        assert await world.passes(60) == 0
        assert world.orphans("attempt") == 1, "the other host holds it, and is asked again"


async def test_several_janitors_free_a_thing_once(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    stage, settings = Stage(), {"inventory_interval": 0.05, "inventory_grace": 0.2}
    world = World(bus)
    async with host(nats_server.url(), tmp_path / "a", stage, **FAST):
        await scheduler.start("wait for-ever")
        await scheduler.until(StepStarted)
        await world.model("finished")
        scheduler.views[JOB] = view("finished", result="error", reason="x")
        async with (
            janitor(nats_server, **settings) as one,  # type: ignore[arg-type]
            janitor(nats_server, **settings) as two,  # type: ignore[arg-type]
        ):

            def freed() -> float:
                return sum(value(each, "reclaimed_total", kind="attempt", reason="ended") for each in (one, two))

            await soon(lambda: freed() >= 1, 15)
            await soon(lambda: value(one, "orphans", kind="attempt") == value(two, "orphans", kind="attempt") == 0)
            assert value(one, "sweep_errors_total", collector="inventory") == 0
        assert not stage.machine.sandboxes
    assert (await scheduler.kinds()).count("JobFinished") <= 1
