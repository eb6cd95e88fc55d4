"""Every fact again, twice, late and in any order: nothing comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, Run, outside, running
from tests.patience import PATIENCE

from pitstop_common.bus import Bus, connected
from pitstop_common.permissions import SERVICES, rights
from pitstop_common.pull import Delivery
from pitstop_common.subjects import about, parse_fact
from pitstop_scheduler import changes as c


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("replay"), "--slots", "8", "--org-slots", "2") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def lived(anybody: Outside) -> list[Run]:
    """Runs of every kind that have ended."""
    plain = await anybody.request("echo one", "echo two")
    failed = await anybody.request("exit 1", {"run": "true", "if": "always()"})
    repaired = await anybody.request("test -e there", ssh={"pause": "on_failure"}, org="other")
    await repaired.paused()
    assert (await repaired.ssh("touch there; pitstop-step retry")).status == 0
    await repaired.exit()
    expired = await anybody.request("true", ssh={"pause": "at_end", "connect_window": 0.3})
    resumed = await anybody.request(
        "true", "true", ssh={"pause": "after_step", "step": 1, "connect_window": 0.3, "on_expiry": "resume"}
    )
    cancelled = await anybody.request("sleep 60", org="third")
    queued = await anybody.request("sleep 60", org="third"), await anybody.request("sleep 60", org="third")
    for run in (queued[1], queued[0], cancelled):
        await run.cancel()
    await anybody.publish(plain.body)
    await anybody.ssh(repaired.job, "true", person=anybody.place.person("eve"))
    ended = [plain, failed, repaired, expired, resumed, cancelled, *queued]
    for run in ended:
        await run.finished()
    for run in ended[:6]:
        await run.hear("job.finished")
    await anybody.hear("run.duplicate")
    await anybody.hear("ssh.denied")
    return ended


@contextlib.asynccontextmanager
async def living(anybody: Outside, org: str) -> AsyncIterator[list[Run]]:
    """Runs that go on: one that runs, one that waits for a person, one with a person inside who typed, one queued."""
    running_ = await anybody.request("until [ -e go ]; do sleep 0.05; done", org=org, ssh={"direct": True})
    await running_.hear("sandbox.ready")
    left = await anybody.request("true", "true", org=f"{org}-left", ssh={"pause": "after_step", "step": 1})
    await left.paused()
    await left.ssh("true")
    await left.paused(2)
    entered = await anybody.request("true", org=org, ssh={"pause": "at_end"})
    await entered.paused()
    queued = await anybody.request("true", org=org)
    with entered.shell() as screen:
        await screen.until(PROMPT)
        screen.type("echo ty''ped\n")
        await screen.until("typed")
        await entered.hear("ssh.active")
        yield [running_, left, entered, queued]
        assert (await running_.ssh("touch go")).status == 0
        await left.exit()
        screen.type("exit\n")
        await screen.ended()
    for run in (running_, left, entered, queued):
        assert await run.finished() == "success"


def writer(type_: str) -> str:
    """Who may say a fact."""
    return next(user for user in SERVICES if about(type_, "*", "*") in rights(user).publish)


async def again(place: Place, facts: list[Delivery], seed: int) -> None:
    """Each fact twice, shuffled, as new messages of those who may say it."""
    chance = random.Random(seed)
    copies = [(fact, number) for fact in facts for number in (1, 2)]
    chance.shuffle(copies)
    async with contextlib.AsyncExitStack() as stack:
        buses: dict[str, Bus] = {}
        for user in SERVICES:
            buses[user] = await stack.enter_async_context(connected(place.url(user), "replay"))
        for fact, number in copies:
            address = parse_fact(fact.subject)
            ack = await buses[writer(address.type)].store(
                about(*address), fact.data, {**fact.headers, "Nats-Msg-Id": f"again.{seed}.{number}.{fact.seq}"}
            )
            assert not ack.duplicate


async def decided(anybody: Outside) -> Run:
    """Everything published before this run is decided on once it is through."""
    marker = await anybody.request("true", org="marker")
    await marker.finished()
    await marker.hear("job.finished")
    return marker


async def views(anybody: Outside) -> dict[str, Any]:
    """The read models, by key."""
    return {message.subject: json.loads(message.data) for message in await anybody.stored("KV_runs")}


async def news(anybody: Outside, since: int, *without: Run) -> list[c.AnyChange]:
    """What was decided after a record, but for some runs, and for what says only that something came again."""
    found: list[c.AnyChange] = []
    for message in await anybody.stored("DEC"):
        if message.seq > since:
            found += c.decode_record(message.data).changes
    mine = tuple(run.id for run in without)
    return [
        one for one in found if not isinstance(one, c.Duplicate | c.Stray) and not any(id in repr(one) for id in mine)
    ]


async def settled(anybody: Outside, last: Run, *without: Run) -> dict[str, Any]:
    """The read models, which trail the decisions: once those of the last run say its end, and no more changes come."""
    before: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE):
        while (now := await views(anybody)) != before or not is_over(now, last):
            before = now
            await asyncio.sleep(0.7)
    return {key: view for key, view in before.items() if not any(run.id in key for run in (last, *without))}


def is_over(found: dict[str, Any], run: Run) -> bool:
    root = f"$KV.runs.{run.org}.{run.id}"
    return all(found.get(key, {}).get("status") == "finished" for key in (root, f"{root}.{run.job}"))


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_fact_twice_and_late_changes_nothing(anybody: Outside, seed: int) -> None:
    ended = await lived(anybody)
    async with living(anybody, f"alive{seed}") as alive:
        first = await decided(anybody)
        before = await settled(anybody, first)
        since = (await anybody.stored("DEC"))[-1].seq
        facts = await anybody.stored("IN")
        assert {parse_fact(fact.subject).type for fact in facts} >= {
            "run.accepted", "run.cancel", "job.claimed", "job.paused", "job.resumed", "job.finished", "step.started",
            "step.finished", "sandbox.ready", "sandbox.room", "ssh.connected", "ssh.active", "ssh.used", "ssh.closed",
            "ssh.denied", "session.expired",
        }  # fmt: skip
        starts = len(anybody.all("run.started"))
        await again(anybody.place, facts, seed)
        last = await decided(anybody)
        assert await news(anybody, since, first, last) == []
        assert await settled(anybody, last, first) == before
        assert len(anybody.all("run.started")) == starts + 1, "only the one that was asked for"
        assert anybody.place.home.json("verify")["wrong"] == []
    for run in (*ended, *alive):
        assert len(await anybody.stored("EVENTS", f"run.finished.{run.org}.{run.id}")) == 1
        assert len(run.all("sandbox.ready")) <= 3, "said, and twice by us"
        logged = await anybody.stored("LOGS", f"logs.{run.org}.{run.id}.*")
        ends = [message for message in logged if json.loads(message.data)["kind"] == "end"]
        assert len(ends) <= 1, "no job ran twice"


async def test_requests_that_come_again_start_nothing(anybody: Outside) -> None:
    runs = [await anybody.request("true") for _ in range(3)]
    for run in runs:
        await run.finished()
    await decided(anybody)
    since = (await anybody.stored("DEC"))[-1].seq
    for one in anybody.all("run.requested"):
        await anybody.publish(one.data)
    last = await decided(anybody)
    assert await news(anybody, since, last) == []
    told = {one.body["request"] for one in anybody.all("run.duplicate")}
    assert {run.body["id"] for run in runs} <= told


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
    assert "Violation" not in Path(place.home.dir / "nats" / "nats.log").read_text()
