"""Sixteen partitions: spread over the schedulers that live, moved when one comes, goes or dies; and whatever partition
an org is in, its runs are taken in, given room, answered for and proved."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.played_host import PlayedHost, Scheduler, until

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import ConfigError
from pitstop_common.limits import OWNER_TTL
from pitstop_common.provision import provision
from pitstop_scheduler.verify import check_all

PARTITIONS = 16
ORGS = tuple(f"org-{number}" for number in range(24))


@pytest.fixture
async def bus(nats_server: EmbeddedServer) -> AsyncIterator[Bus]:
    async with connected(nats_server.url(), "test") as connection:
        await provision(connection, partitions=PARTITIONS)
        yield connection


class Host(PlayedHost):
    """Takes, and ends at once what it took, or keeps it."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.most = 0
        self.kept: list[m.Start] = []

    async def announce(self, capacity: int, serial: int = 1) -> None:
        for token in subjects.nobodies(PARTITIONS):
            fact = m.SandboxRoom(id=f"room.{serial}.{token}", time="", org="_", run="_", host=self.name, pool="default",
                                 incarnation="i1", capacity=capacity, serial=serial)  # fmt: skip
            subject = subjects.about("sandbox.room", token, "_")
            await self.bus.store_surely(subject, m.encode(fact), {"Nats-Msg-Id": fact.id})

    async def work(self) -> None:
        """For ever. What waits in WORK beside it would have no place."""
        while True:
            self.kept.append(await self.take())
            self.most = max(self.most, len(self.kept))
            start = self.kept[-1]
            await self.report(m.JobClaimed, start, serial=1)
            if len(self.kept) > 3:
                await self.end_one()

    async def end_one(self) -> None:
        await self.report(m.JobFinished, self.kept.pop(0), result="success", serial=2)


def request(org: str, id: str) -> bytes:
    return json.dumps({"id": id, "org": org, "project": "web", "steps": [{"run": "true"}]}).encode()


async def seats(bus: Bus) -> Counter[bytes]:
    """How many partitions each living owner has."""
    bucket = Bucket(bus, "owners")
    entries = await asyncio.gather(*(bucket.get(str(number)) for number in range(PARTITIONS)))
    return Counter(entry.value for entry in entries if entry is not None and entry.value is not None)


async def spread(bus: Bus, *wanted: int) -> bool:
    return sorted((await seats(bus)).values()) == sorted(wanted)


async def ask(bus: Bus, org: str, verb: str, /, **body: Any) -> Any:
    reply = await bus.request(subjects.api(org, "ada", verb), json.dumps(body).encode(), timeout=6)
    assert "Nats-Service-Error-Code" not in (reply.headers or {}), reply.data
    return json.loads(reply.data)


async def run_everywhere(bus: Bus, round_: str) -> set[str]:
    """Two runs of each org. Their ids."""
    runs = set()
    for org in ORGS:
        await bus.store_surely("run.requested", request(org, f"{round_}-a"), {"Nats-Msg-Id": f"{org}.{round_}"})
        runs.add((await ask(bus, org, "run", id=f"{round_}-b", org=org, project="web", steps=[{"run": "true"}]))["run"])
    return runs


async def all_ended(bus: Bus, count: int) -> bool:
    """By every org's own list."""
    lists = [await ask(bus, org, "ls", all=True) for org in ORGS]
    return bool(sum(run["status"] == "finished" for found in lists for run in found["runs"]) == count)


async def test_partitions_move_when_a_scheduler_comes_goes_and_dies(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    schedulers = [Scheduler(nats_server.url(), tmp_path, name, partitions="16") for name in ("one", "two", "three")]
    one, two, three = schedulers
    host = Host(bus)
    working = asyncio.ensure_future(host.work())
    try:
        await one.start()
        await until(lambda: spread(bus, 16))
        await two.start()
        await until(lambda: spread(bus, 8, 8))
        await three.start()
        await until(lambda: spread(bus, 6, 6, 4))
        await host.announce(4)
        await run_everywhere(bus, "first")
        await finish(bus, host, 48)
        assert host.most <= 4, "starts beyond the room of the hosts"

        before = await seats(bus)
        assert three.end() == 0
        gone = [owner for owner in before if before[owner] != (await seats(bus))[owner] == 0]
        assert len(gone) == 1, "what it had is free at once"
        await until(lambda: spread(bus, 8, 8))
        await run_everywhere(bus, "second")
        killed = time.monotonic()
        two.end(signal.SIGKILL)
        await until(lambda: spread(bus, 16), OWNER_TTL + 10)
        print(f"taken over {time.monotonic() - killed:.2f} s after the kill")
        await finish(bus, host, 96)
        assert host.most <= 4
        assert [(checker.wrong, checker.state.partition) for checker in await check_all(bus)] == [
            ([], number) for number in range(PARTITIONS)
        ]
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await host.close()
        assert {one.end() for one in schedulers if one.process is not None} <= {0}


async def finish(bus: Bus, host: Host, count: int) -> None:
    """All that were asked for so far."""
    while not await all_ended(bus, count):
        if host.kept:
            await host.end_one()
        await asyncio.sleep(0.02)


async def test_a_lost_host_is_lost_in_every_partition(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """Its jobs end, wherever their orgs are, and its places are nobody's."""
    from pitstop_janitor.collectors.lost_hosts import lost_host
    from pitstop_janitor.collectors.saying import say_to_all

    one = Scheduler(nats_server.url(), tmp_path, "one", partitions="16")
    host = Host(bus)
    try:
        await one.start()
        await host.announce(4)
        for org in ORGS[:4]:
            await bus.store_surely("run.requested", request(org, "x"), {"Nats-Msg-Id": org})
            await host.report(m.JobClaimed, await host.take(), serial=1)
        beat = m.Heartbeat(host=host.name, incarnation="i1", pool="default", capacity=4, beat=1)
        assert await say_to_all(bus, lost_host(beat, time.time()), PARTITIONS)
        assert not await say_to_all(bus, lost_host(beat, time.time()), PARTITIONS)
        await until(lambda: all_lost(bus, ORGS[:4]))
        await bus.store_surely("run.requested", request(ORGS[0], "y"), {"Nats-Msg-Id": "y"})
        waits = await until(lambda: waiting(bus, ORGS[0]))
        assert waits == "no sandbox host of pool default is up"
        assert [checker.wrong for checker in await check_all(bus)] == [[]] * PARTITIONS
    finally:
        await host.close()
        assert one.end() == 0


async def all_lost(bus: Bus, orgs: tuple[str, ...]) -> bool:
    jobs = [job for org in orgs for job in (await ask(bus, org, "ls", all=True))["jobs"]]
    return [job["reason"] for job in jobs] == ["host_lost"] * len(orgs)


async def waiting(bus: Bus, org: str) -> Any:
    for run in (await ask(bus, org, "ls"))["runs"]:
        if run["request"] == "y":
            return (await ask(bus, org, "status", run=run["run"]))["jobs"][0]["reason"]
    return None


async def test_another_number_of_partitions_is_refused_by_name(bus: Bus) -> None:
    with pytest.raises(ConfigError) as refused:
        await provision(bus, partitions=4)
    assert "PITSTOP_PARTITIONS is 4, and this deployment has 16" in str(refused.value)
    assert "Set PITSTOP_PARTITIONS=16" in str(refused.value)
    await provision(bus, partitions=16)


async def test_the_server_puts_every_token_where_the_schedulers_look_for_it(bus: Bus) -> None:
    tokens = (*ORGS, *subjects.nobodies(PARTITIONS))
    for token in tokens:
        ack = await bus.store(subjects.about("run.cancel", token, "r"), b"{}")
        stored = await bus.js.get_msg("IN", ack.seq)
        assert stored.subject is not None
        assert int(stored.subject.split(".")[1]) == subjects.partition_of(token, PARTITIONS)
    assert [subjects.partition_of(one, PARTITIONS) for one in subjects.nobodies(PARTITIONS)] == list(range(PARTITIONS))
