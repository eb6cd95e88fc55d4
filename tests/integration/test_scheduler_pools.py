"""Limits of pools that change while jobs of several orgs run: a real scheduler; the test plays the host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.played_host import PlayedHost, Scheduler, until

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import read_all
from pitstop_common.streams import IN
from pitstop_scheduler.verify import check_all

ORGS = tuple(f"org-{number}" for number in range(8))
"""With 4 partitions they are in several."""
ROOM = 8


@pytest.fixture(params=[1, 4])
def partitions(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def schedulers(
    bus: Bus, nats_server: EmbeddedServer, partitions: int, tmp_path: Path
) -> AsyncIterator[list[Scheduler]]:
    """Two: who is asked may own nothing."""
    made = [
        Scheduler(
            nats_server.url(), tmp_path, name, partitions=str(partitions), pool_slots="6", admins="*/ops,acme/ada"
        )
        for name in ("one", "two")
    ]
    try:
        for one in made:
            await one.start()
        for org in ORGS:
            await until(lambda: answers(bus, org))  # noqa: B023
        yield made
    finally:
        statuses = [one.end() for one in made if one.process is not None]
    assert statuses == [0, 0]


@pytest.fixture
async def host(bus: Bus, partitions: int) -> AsyncIterator[PlayedHost]:
    played = PlayedHost(bus)
    for token in subjects.nobodies(partitions):
        fact = m.SandboxRoom(id=f"room.{token}", time="", org="_", run="_", host=played.name, incarnation="i1",
                             pool="default", capacity=ROOM, serial=1)  # fmt: skip
        await bus.store_surely(subjects.about("sandbox.room", token, "_"), m.encode(fact), {"Nats-Msg-Id": fact.id})
    await until(lambda: shows(bus, "places", ROOM))
    yield played
    await played.close()


async def ask(bus: Bus, verb: str, org: str = ORGS[0], actor: str = "ops", /, **body: Any) -> Any:
    reply = await bus.request(subjects.api(org, actor, verb), json.dumps(body).encode(), timeout=12)
    return json.loads(reply.data) | {"code": (reply.headers or {}).get("Nats-Service-Error-Code")}


async def answers(bus: Bus, org: str) -> bool:
    return (await ask(bus, "org-show", org))["code"] is None


async def pool(bus: Bus, org: str = ORGS[0]) -> Any:
    return next((one for one in (await ask(bus, "org-show", org))["pools"] if one["pool"] == "default"), {})


async def shows(bus: Bus, field: str, value: Any) -> bool:
    return bool((await pool(bus)).get(field) == value)


async def apply(bus: Bus, slots: int | None) -> Any:
    done = await ask(bus, "pools-apply", pools={"default": {} if slots is None else {"slots": slots}})
    assert done["code"] is None, done
    return done["pools"][0]


async def run(bus: Bus, org: str, id: str) -> str:
    made = await ask(bus, "run", org, id=id, org=org, project="web", steps=[{"run": "true"}])
    return str(made["run"])


async def test_a_limit_of_a_pool_holds_over_all_orgs_kills_nothing_and_is_used_at_once(
    bus: Bus, schedulers: list[Scheduler], host: PlayedHost
) -> None:
    for org in ORGS:
        await run(bus, org, "one")
    starts = [await host.take() for _ in range(6)]
    await until(lambda: shows(bus, "used", 6))
    assert await pool(bus, ORGS[1]) == {"pool": "default", "slots": 6, "own_slots": None, "used": 6, "places": ROOM}
    lowered = await apply(bus, 3)
    assert (lowered["slots"], lowered["own_slots"], lowered["used"]) == (3, 3, 6)
    for left in (5, 4, 3):
        await end(bus, host, starts.pop(0), used=left)
    await end(bus, host, starts.pop(0), used=2, then=3)
    starts.append(await host.take())
    waits = [job for org in ORGS for job in (await ask(bus, "ls", org))["jobs"] if job["status"] == "queued"]
    assert len(waits) == 1
    status = await ask(bus, "status", waits[0]["org"], run=waits[0]["run"])
    assert "of pool default" in status["jobs"][0]["reason"]
    assert len(await read_all(bus, IN, "in.*.pool.configured.>")) == 1
    await apply(bus, 0)
    starts.append(await host.take())
    raised = await pool(bus)
    assert (raised["slots"], raised["own_slots"], raised["used"]) == (0, 0, 4)
    assert (await apply(bus, None))["slots"] == 6
    for left in (3, 2, 1, 0):
        await end(bus, host, starts.pop(0), used=left)
    assert [checker.wrong for checker in await check_all(bus)] == [[]] * len(await check_all(bus))


async def end(bus: Bus, host: PlayedHost, start: m.Start, *, used: int, then: int | None = None) -> None:
    """Of a job, and what is in use when nobody, or somebody, has followed it (`then`)."""
    await host.report(m.JobClaimed, start, serial=1)
    await host.report(m.JobFinished, start, result="success", serial=2)
    await until(lambda: shows(bus, "used", used if then is None else then))


async def test_a_limit_survives_those_who_decided_on_it(
    bus: Bus, schedulers: list[Scheduler], host: PlayedHost
) -> None:
    await apply(bus, 2)
    for one in schedulers:
        assert one.end() == 0
    for one in schedulers:
        await one.start()
    await until(lambda: shows(bus, "own_slots", 2))
    for org in ORGS[:4]:
        await run(bus, org, "one")
    for _ in range(2):
        await host.take()
    await until(lambda: shows(bus, "used", 2))
    assert sum([(await ask(bus, "ls", org))["jobs"][0]["status"] == "queued" for org in ORGS[:4]]) == 2


async def test_who_runs_no_deployment_sets_no_limit_of_what_all_share(bus: Bus, schedulers: list[Scheduler]) -> None:
    for org, actor in (("acme", "ada"), ("acme", "bob")):  # an admin of one org, and nobody in particular
        refused = await ask(bus, "pools-apply", org, actor, pools={"default": {"slots": 1}})
        assert (refused["code"], refused["error"]) == ("403", "denied")
        assert f"which {actor} is not. Who runs the schedulers can change it: `*/{actor}`" in refused["message"]
    wrong = await ask(bus, "pools-apply", pools={"default": {"slots": -1}, "Big": {}})
    assert wrong["code"] == "400"
    assert sorted(fault["pointer"] for fault in wrong["errors"]) == ["/pools", "/pools/default/slots"]
    assert await read_all(bus, IN, "in.*.pool.configured.>") == []
