"""Hosts and jobs that nobody hears of any more, on a real server. The janitor's clock is the test's."""

from __future__ import annotations

import signal
from typing import Any

from tests.janitors import eventually, janitor, total, value

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Claim, Heartbeat, JobStatus, JobView, SandboxLost, decode_fact, encode
from pitstop_common.pull import read_all
from pitstop_common.streams import IN
from pitstop_common.telemetry import ServiceMetrics
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.collectors.lost_hosts import LostHosts
from pitstop_janitor.collectors.starts import Starts
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics

RUN = "abcdefghijkl"
CONFIG = JanitorConfig(nats_url="unused", scan_interval=5, jobs_interval=10, host_lost_after=120)


class World:
    """Buckets, a clock that the test moves, and the collectors of one janitor."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.now, self.beats = bus, 1000.0, 0
        self.hosts, self.runs, self.claims = Bucket(bus, "hosts"), Bucket(bus, "runs"), Bucket(bus, "claims")
        self.registry = ServiceMetrics("janitor").registry
        self.metrics = JanitorMetrics(self.registry)
        self.lost_hosts = LostHosts(bus, self.metrics, CONFIG, lambda: self.now)
        self.starts = Starts(bus, self.metrics, CONFIG, OpenJobs(bus), lambda: self.now)

    async def beat(self, host: str, *jobs: tuple[str, int], incarnation: str = "i1") -> None:
        self.beats += 1
        beat = Heartbeat(host=host, incarnation=incarnation, pool="default", capacity=2, beat=self.beats, jobs=jobs)
        await self.hosts.put(host, encode(beat))

    async def job(self, number: int, status: JobStatus, host: str = "", attempt: int = 1) -> str:
        job = f"{RUN}-{number}"
        view = JobView(job=job, run=RUN, org="acme", project="web", key="k", pool="default", status=status,
                       attempt=attempt, host=host, incarnation="i1" if host else "")  # fmt: skip
        await self.runs.put(f"acme.{RUN}.{job}", encode(view))
        return job

    async def hosts_pass(self, seconds: int, *living: str) -> int:
        """Let time pass, with a look each 5 s; how many were freed."""
        freed = 0
        for _ in range(seconds // 5):
            self.now += 5
            for host in living:
                await self.beat(host)
            freed += (await self.lost_hosts.sweep()).freed
        return freed

    async def jobs_pass(self, seconds: int) -> int:
        freed = 0
        for _ in range(seconds // 10):
            self.now += 10
            freed += (await self.starts.sweep()).freed
        return freed

    async def losses(self) -> list[SandboxLost]:
        facts = [decode_fact(item.data) for item in await read_all(self.bus, IN, subjects.facts_of(0))]
        return [fact for fact in facts if isinstance(fact, SandboxLost)]


async def test_a_silent_host_is_lost_and_its_heartbeat_removed_while_another_lives(bus: Bus) -> None:
    world = World(bus)
    await world.beat("silent")
    assert await world.hosts_pass(120, "living") == 0
    assert world.registry.get_sample_value("pitstop_janitor_orphans", {"kind": "host"}) == 1
    assert await world.hosts_pass(5, "living") == 1
    (fact,) = await world.losses()
    assert (fact.id, fact.host, fact.incarnation, fact.job) == ("lost.silent.i1", "silent", "i1", "")
    assert set(await world.hosts.scan()) == {"living"}
    assert await world.hosts_pass(200, "living") == 0


async def test_a_host_that_comes_back_in_the_last_moment_is_not_lost(bus: Bus) -> None:
    world = World(bus)
    await world.beat("late")
    assert await world.hosts_pass(120) == 0
    await world.beat("late")
    assert await world.hosts_pass(120) == 0
    assert await world.losses() == []


async def test_a_new_incarnation_supersedes_the_old_one_silently(bus: Bus) -> None:
    world = World(bus)
    await world.beat("h")
    assert await world.hosts_pass(120) == 0
    await world.beat("h", incarnation="i2")
    assert await world.hosts_pass(120) == 0
    assert await world.hosts_pass(5) == 1
    assert [fact.incarnation for fact in await world.losses()] == ["i2"]


async def test_an_outage_of_nats_is_nobodys_death(bus: Bus, nats_server: EmbeddedServer) -> None:
    world = World(bus)
    await world.beat("h")
    assert await world.hosts_pass(120) == 0
    await nats_server.stop(signal.SIGKILL)
    await nats_server.start()
    await eventually(lambda: bus.nc.is_connected and bus.nc.stats["reconnects"] > 0)
    assert await world.hosts_pass(120) == 0
    assert await world.hosts_pass(5) == 1


async def test_a_loss_that_was_said_before_a_crash_is_not_news_but_is_finished(bus: Bus) -> None:
    first = World(bus)
    await first.beat("h")
    assert await first.hosts_pass(125) == 1
    await first.hosts.put("h", encode(Heartbeat(host="h", incarnation="i1", pool="default", capacity=2, beat=1)))
    second = World(bus)
    assert await second.hosts_pass(125) == 0
    assert len(await second.losses()) == 1
    assert await second.hosts.scan() == {}


async def test_two_janitors_lose_a_host_once(bus: Bus, nats_server: EmbeddedServer) -> None:
    settings: dict[str, Any] = {"scan_interval": 0.05, "host_lost_after": 0.6}
    async with janitor(nats_server, **settings) as one, janitor(nats_server, **settings) as two:
        world = World(bus)
        await world.beat("silent")
        await eventually(lambda: total(one, "reclaimed_total") + total(two, "reclaimed_total") >= 1)
        looks = [value(each, "sweep_seconds_count", collector="lost_hosts") for each in (one, two)]
        await eventually(
            lambda: all(
                value(each, "sweep_seconds_count", collector="lost_hosts") > before + 2
                for each, before in zip((one, two), looks, strict=True)
            )
        )
        assert total(one, "reclaimed_total") + total(two, "reclaimed_total") == 1
        assert len(await world.losses()) == 1


# -- jobs --------------------------------------------------------------------------------------------------------


async def test_a_claimed_start_whose_host_is_gone_is_lost(bus: Bus) -> None:
    world = World(bus)
    job = await world.job(1, "starting")
    await world.claims.put(f"{job}.1", encode(Claim(host="gone", incarnation="i9")))
    assert await world.jobs_pass(120) == 0
    assert await world.jobs_pass(10) == 1
    (fact,) = await world.losses()
    assert (fact.org, fact.run, fact.job, fact.attempt) == ("acme", RUN, job, 1)
    assert (fact.host, fact.incarnation, fact.id) == ("gone", "i9", f"lost.gone.i9.{job}.1")


async def test_only_what_is_claimed_and_not_over_and_held_by_nobody_is_lost(bus: Bus) -> None:
    world = World(bus)
    await world.beat("living")
    await world.beat("reborn", (f"{RUN}-5", 1), incarnation="i2")
    await world.job(1, "starting")  # waits in the work queue
    await world.job(2, "running", "living")
    await world.job(3, "finished", "gone")
    await world.job(4, "queued")
    await world.job(5, "paused", "reborn")  # adopted
    orphan = await world.job(6, "running", "reborn")
    assert await world.jobs_pass(130) == 1
    assert [fact.job for fact in await world.losses()] == [orphan]
    assert world.registry.get_sample_value("pitstop_janitor_orphans", {"kind": "job"}) == 1


async def test_a_job_that_ends_or_is_tried_again_in_time_is_left_alone(bus: Bus) -> None:
    world = World(bus)
    await world.job(1, "running", "gone")
    retried = await world.job(2, "starting")
    await world.claims.put(f"{retried}.1", encode(Claim(host="gone", incarnation="i1")))
    assert await world.jobs_pass(120) == 0
    await world.job(1, "finished", "gone")
    await world.job(2, "starting", attempt=2)
    assert await world.jobs_pass(200) == 0
    await world.claims.put(f"{retried}.2", encode(Claim(host="gone", incarnation="i1")))
    assert await world.jobs_pass(130) == 1
    assert [(fact.job, fact.attempt) for fact in await world.losses()] == [(retried, 2)]


async def test_jobs_are_read_again_after_an_outage(bus: Bus, nats_server: EmbeddedServer) -> None:
    world = World(bus)
    await world.job(1, "running", "gone")
    assert await world.jobs_pass(120) == 0
    await nats_server.stop(signal.SIGKILL)
    await nats_server.start()
    await eventually(lambda: bus.nc.is_connected and bus.nc.stats["reconnects"] > 0)
    assert await world.jobs_pass(120) == 0
    assert await world.jobs_pass(10) == 1


async def test_read_models_that_are_none_are_passed_over(bus: Bus) -> None:
    world = World(bus)
    await world.runs.put(f"acme.{RUN}.{RUN}-1", b"not json")
    await world.hosts.put("broken", b"[]")
    await world.job(2, "running", "gone")
    assert await world.jobs_pass(130) == 1
    assert await world.hosts_pass(130) == 0
