"""Who owns the log: an owner that was stopped for a while, a standby that does not know yet what the log says."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.played_host import PlayedHost, Scheduler, ask, request, until

from pitstop_common import messages as m
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.limits import OWNER_TTL
from pitstop_common.telemetry import ServiceMetrics
from pitstop_scheduler import changes as c
from pitstop_scheduler.config import Config
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.keyring import Keyring
from pitstop_scheduler.links import Links
from pitstop_scheduler.log import Log
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.partition import Partition
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.verify import check


def owns(scheduler: Scheduler) -> bool:
    """By its own metrics."""
    url = json.loads(scheduler.ready.read_text())["http"]
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return "pitstop_scheduler_owner 1.0" in lines


async def test_an_owner_that_was_stopped_stands_down_without_being_asked(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """No fact comes that could show it that the log has another owner."""
    one, two = (Scheduler(nats_server.url(), tmp_path, name) for name in ("one", "two"))
    host = PlayedHost(bus)
    try:
        await one.start()
        await until(lambda: owns(one))
        await two.start()
        assert one.process is not None
        one.process.send_signal(signal.SIGSTOP)
        await until(lambda: owns(two), 10)
        one.process.send_signal(signal.SIGCONT)
        await until(lambda: not owns(one), 10)
        two.end(signal.SIGKILL)
        await host.announce(1)
        await ask_for(bus, host, "a")
        await until(lambda: owns(one), 10)
        assert (await until(lambda: proved(bus))).state.epoch == 3
    finally:
        await host.close()
        assert [one.end() for one in (one, two) if one.process is not None] == [0]


async def ask_for(bus: Bus, host: PlayedHost, name: str) -> None:
    """A run, to its end."""
    await bus.store_surely("run.requested", request(name), {"Nats-Msg-Id": name})
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.JobFinished, start, result="success")
    await until(lambda: ended(bus, start.run))


async def ended(bus: Bus, run: str) -> Any:
    return (await ask(bus, "status", run=run))["run"]["result"]


async def proved(bus: Bus) -> Any:
    checker = await check(bus)
    return checker if not checker.wrong and checker.ended else None


async def test_a_claim_whose_answer_was_lost_is_ones_own(bus: Bus) -> None:
    """Its key is there already: the owner need not wait until that expires."""
    log = Log(bus, 0)
    await Bucket(bus, "owners").create("0", b"me", ttl=OWNER_TTL)
    partition = Partition(bus, log, "me", c.Defaults(0, 0, 0), Metrics(ServiceMetrics("scheduler")))
    stopping = asyncio.Event()
    running = asyncio.ensure_future(partition.run(stopping))
    try:
        await until(lambda: partition.owned, OWNER_TTL / 2)
    finally:
        stopping.set()
        await running
        await log.close()


async def test_a_scheduler_that_has_not_read_the_log_to_its_end_answers_nothing(bus: Bus) -> None:
    """A host acts on the answer: it would end a job that this scheduler has not heard of yet."""
    logs, other = Logs(bus), Log(bus, 0)
    (log,) = logs
    policy = Policy(logs, Config(nats_url=""))
    contexts = Contexts(bus, Keyring({}), policy.admins)
    reading = Reading(bus, logs, People(bus, Links(bus, policy.ssh, contexts)), policy, contexts)
    try:
        await reading.current("a")
        for number in (1, 2):
            await other.append(c.Record(1, number, "other", 0, 0.0, 0, ()))
        with pytest.raises(Unavailable):
            await reading.current("a")
        await until(lambda: log.follow(0.1))
        await reading.current("a")
    finally:
        await log.close()
        await other.close()


async def test_what_one_scheduler_has_answered_the_other_knows(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A standby rests between two looks at the log, which nobody who asks it may notice."""
    schedulers = [Scheduler(nats_server.url(), tmp_path, name) for name in ("one", "two")]
    try:
        for one in schedulers:
            await one.start()
        for number in range(25):
            run = (await ask(bus, "run", **json.loads(request(f"r{number}"))))["run"]
            found = await ask(bus, "status", run=run)
            assert found.get("run", {}).get("run") == run, found
    finally:
        for one in schedulers:
            if one.process is not None:
                one.end()
