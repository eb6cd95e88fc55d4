"""What nobody asks for any more goes, by the server's clock; what is young, or still wanted, stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.janitors import eventually, janitor, total, value
from tests.patience import PATIENCE

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.limits import CLAIMS_KEPT, CONSUMERS_KEPT, KNOWN_FOR, VIEWS_KEPT
from pitstop_common.messages import Claim, Heartbeat, JobStatus, JobView, RunView, encode
from pitstop_common.pull import Pull
from pitstop_common.streams import SPECS, WORK, buckets, host_consumer, streams
from pitstop_common.telemetry import ServiceMetrics
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.collectors.stale_keys import StaleKeys
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics

RUN = "abcdefghijkl"
NEVER = 3600.0


class World:
    """Buckets, and the collector of one janitor. Ages are seconds."""

    def __init__(self, bus: Bus, **ages: float) -> None:
        kept: dict[str, Any] = {
            "claims_kept": NEVER,
            "views_kept": NEVER,
            "heartbeats_kept": NEVER,
            "consumers_kept": NEVER,
            **ages,
        }
        self.bus, self.registry = bus, ServiceMetrics("janitor").registry
        config = JanitorConfig(nats_url="unused", **kept)
        self.stale = StaleKeys(bus, JanitorMetrics(self.registry), config, OpenJobs(bus))
        self.hosts, self.runs, self.claims = Bucket(bus, "hosts"), Bucket(bus, "runs"), Bucket(bus, "claims")

    def removed(self, kind: str) -> float:
        labels = {"kind": kind, "reason": "stale"}
        return self.registry.get_sample_value("pitstop_janitor_reclaimed_total", labels) or 0.0

    async def job(self, number: int, status: JobStatus) -> str:
        job = f"{RUN}-{number}"
        view = JobView(job=job, run=RUN, org="acme", project="web", key="k", pool="default", status=status, attempt=1)
        await self.runs.put(f"acme.{RUN}.{job}", encode(view))
        return job

    async def run(self, status: Any) -> None:
        view = RunView(run=RUN, org="acme", project="web", request="r", actor="ada", status=status, result="", jobs=())
        await self.runs.put(f"acme.{RUN}", encode(view))

    async def claim(self, job: str) -> None:
        await self.claims.put(f"{job}.1", encode(Claim(host="h", incarnation="1")))


def test_the_ages_follow_from_what_else_is_kept() -> None:
    """A start, a fact, a deadline or a spec must never outlive the claim that keeps it from running again."""
    kept = {str(one.name): one.max_age or 0.0 for one in streams()}
    assert max(kept[name] for name in ("REQ", "REQ_ORG", "IN", "WORK", "TIMERS", "SPECS")) < CLAIMS_KEPT
    assert KNOWN_FOR < VIEWS_KEPT <= kept[SPECS]
    assert kept[WORK] < CONSUMERS_KEPT


def test_nothing_but_the_janitor_ends_a_claim() -> None:
    """So that a start runs nothing however long ago its job ended: neither the bucket nor an entry of it has a time."""
    (claims,) = (one for one in buckets() if one.name == "KV_claims")
    assert not claims.max_age and not claims.allow_msg_ttl and claims.deny_delete
    assert claims.max_msgs_per_subject == 1 and claims.max_bytes in {None, -1} and claims.max_msgs in {None, -1}


async def test_claims_go_when_they_are_old_and_their_job_is_over(bus: Bus) -> None:
    world = World(bus, claims_kept=0.2)
    over, open_, unknown = await world.job(1, "finished"), await world.job(2, "paused"), f"{RUN}-3"
    for job in (over, open_, unknown):
        await world.claim(job)
    await eventually_removed(world, 2)
    assert set(await world.claims.scan()) == {f"{open_}.1"}
    assert world.removed("claim") == 2
    await world.job(2, "finished")
    await eventually_removed(world, 1)
    assert (await bus.js.stream_info("KV_claims")).state.messages == 0, "not even the mark of a deletion is left"


async def eventually_removed(world: World, count: int) -> None:
    removed = 0
    async with asyncio.timeout(PATIENCE):
        while removed < count:
            removed += (await world.stale.sweep()).freed
            await asyncio.sleep(0.02)
    assert (await world.stale.sweep()).freed == 0


async def test_young_entries_stay_and_cost_one_look(bus: Bus) -> None:
    world = World(bus)
    await world.claim(await world.job(1, "finished"))
    await world.hosts.put("h", b"{}")
    await bus.js.add_consumer(WORK, host_consumer("h2"))
    swept = await world.stale.sweep()
    assert (swept.seen, swept.freed) == (1, 0)  # the consumer alone was looked at
    assert set(await world.claims.scan()) == {f"{RUN}-1.1"}


async def test_an_entry_that_is_written_between_look_and_removal_stays(bus: Bus) -> None:
    world = World(bus, heartbeats_kept=0.0)
    await world.hosts.put("h", b"old")
    old = await world.stale._older_than("hosts", 0.0)
    await world.hosts.put("h", b"new")
    assert (await world.stale._purge("heartbeat", "hosts", old, old)).freed == 0
    assert (await world.hosts.scan())["h"].value == b"new"


@pytest.mark.parametrize(("status", "left"), [("running", 3), ("finished", 0)])
async def test_read_models_go_with_their_run(bus: Bus, status: Any, left: int) -> None:
    world = World(bus, views_kept=0.1)
    await world.run(status)
    job = await world.job(1, status)
    await world.runs.put(f"acme.{RUN}.{job}.report", b"{}")
    await world.runs.put("acme.broken", b"not json")
    await eventually_removed(world, 4 - left)
    assert len(await world.runs.scan()) == left


async def test_a_heartbeat_that_nobody_can_read_and_the_mark_of_one_that_went_are_removed(bus: Bus) -> None:
    world = World(bus, heartbeats_kept=0.1)
    await world.hosts.put("broken", b"[]")
    await world.hosts.put("left", b"{}")
    await world.hosts.delete("left")
    await eventually_removed(world, 2)
    assert (await bus.js.stream_info("KV_hosts")).state.messages == 0


async def test_consumers_of_hosts_that_never_come_back_are_removed(bus: Bus) -> None:
    world = World(bus, consumers_kept=0.1)
    beat = Heartbeat(host="living", incarnation="1", pool="default", capacity=1, beat=1)
    await world.hosts.put("living", encode(beat))
    for host in ("living", "gone", "waits"):
        await bus.js.add_consumer(WORK, host_consumer(host))
    pull = Pull(bus, WORK, host_consumer("waits"))
    await pull.next(0.01)
    await eventually_removed(world, 1)
    names = {one.name for one in await bus.js.consumers_info(WORK)}
    assert names == {"host-living", "host-waits"}
    assert world.removed("consumer") == 1
    await pull.close()


async def test_a_kind_that_fails_stops_no_other_and_is_told(bus: Bus) -> None:
    world = World(bus, claims_kept=0.0, heartbeats_kept=0.0)
    await bus.js.delete_stream("KV_claims")
    await world.hosts.put("h", b"[]")
    async with asyncio.timeout(PATIENCE):
        while await world.hosts.scan():
            with pytest.raises(Exception, match="stream not found"):
                await world.stale.sweep()
    assert world.removed("heartbeat") == 1


async def test_several_janitors_remove_each_entry_once(bus: Bus, nats_server: EmbeddedServer) -> None:
    world = World(bus)
    for number in range(1, 51):
        await world.claim(await world.job(number, "finished"))
    settings: dict[str, Any] = {"stale_interval": 0.02, "claims_kept": 0.1}
    async with janitor(nats_server, **settings) as one, janitor(nats_server, **settings) as two:
        removed = {"kind": "claim", "reason": "stale"}
        await eventually(lambda: sum(value(each, "reclaimed_total", **removed) for each in (one, two)) >= 50)
        looks = [value(each, "sweep_seconds_count", collector="stale_keys") for each in (one, two)]
        await eventually(
            lambda: all(
                value(each, "sweep_seconds_count", collector="stale_keys") > before + 1
                for each, before in zip((one, two), looks, strict=True)
            )
        )
        assert total(one, "reclaimed_total") + total(two, "reclaimed_total") == 50
        assert [value(each, "sweep_errors_total", collector="stale_keys") for each in (one, two)] == [0, 0]
    assert await world.claims.scan() == {}
