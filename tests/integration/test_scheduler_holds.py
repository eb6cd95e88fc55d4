"""Holds through a real scheduler: set by a person, carried by a start, and the way in for whom they wait. Row A11."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.played_host import KEY, PlayedHost, Scheduler, ask, playing, scheduling, until

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_scheduler.verify import check


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with scheduling(nats_server.url(), tmp_path, ssh_disabled="acme/locked", snapshot_every="3") as one:
        yield one


@pytest.fixture
async def host(bus: Bus) -> AsyncIterator[PlayedHost]:
    async with playing(bus, 9) as played:
        yield played


async def started(bus: Bus, host: PlayedHost, **source: str) -> m.Start:
    """A run of somebody else, which asks for no session."""
    body: dict[str, Any] = {"org": "acme", "project": "web", "steps": [{"run": "make"}],
                            "source": {"git": "https://example.org/web", **source}}  # fmt: skip
    await bus.request(subjects.api("acme", "eve", "run"), json.dumps(body).encode(), timeout=6)
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)
    return start


async def fails(host: PlayedHost, start: m.Start) -> None:
    await host.report(m.JobPaused, start, reason="on_failure", so_far="failure", hold=start.hold)


async def access(bus: Bus, start: m.Start) -> m.AccessReply:
    reply = await bus.request(subjects.service("access"), m.encode(m.AccessRequest(job=start.job)))
    return msgspec.json.decode(reply.data, type=m.AccessReply)


async def job(bus: Bus, start: m.Start) -> dict[str, Any]:
    return dict((await ask(bus, "status", run=start.run))["jobs"][0])


async def is_paused(bus: Bus, start: m.Start) -> bool:
    return bool((await job(bus, start))["job"]["status"] == "paused")


async def test_the_next_failure_waits_for_who_asked_and_lets_nobody_else_in(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await ask(bus, "keys-add", key=KEY)
    hold = await ask(bus, "hold", project="web", branch="main")
    assert (hold["user"], hold["left"], hold["branch"]) == ("ada", 1, "main")
    other, start = await started(bus, host, ref="next"), await started(bus, host, ref="main")
    assert (other.hold, start.hold, start.hold_user) == ("", hold["hold"], "ada")
    assert not (await access(bus, start)).offers
    assert scheduler.end() == 0  # what holds there are lies in the log and its snapshots
    await scheduler.start()
    await fails(host, start)
    await until(lambda: is_paused(bus, start))
    let_in = await access(bus, start)
    assert let_in.offers and [key.user for key in let_in.allowed] == ["ada"]
    entry = await job(bus, start)
    assert (entry["job"]["held_for"], entry["job"]["hold"]) == ("ada", hold["hold"])
    assert [person["user"] for person in entry["allowed"]] == ["ada"]
    assert (await ask(bus, "hold-ls"))["holds"] == []
    assert not (await access(bus, other)).offers
    await host.report(m.JobFinished, start, result="failure")
    await host.report(m.JobFinished, other, result="success")
    await until(lambda: settled(bus))


async def test_a_job_whose_hold_was_used_up_by_another_is_told_to_go_on(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await ask(bus, "keys-add", key=KEY)
    await ask(bus, "hold", project="web", count=1)
    one, two = await started(bus, host), await started(bus, host)
    assert one.hold == two.hold != ""
    await fails(host, one)
    await fails(host, two)
    (told,) = await until(lambda: host.commands.next(1, 1))
    command = m.decode_command(told.data)
    await told.ack()
    assert isinstance(command, m.Resume) and (command.job, command.reason) == (two.job, m.HOLD_OVER)
    assert not (await access(bus, two)).offers
    assert (await access(bus, one)).offers


async def test_set_once_listed_and_removed_by_its_people(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    await ask(bus, "keys-add", key=KEY)
    body = {"project": "web", "job": "build", "count": 3, "id": "mine", "seconds": 3600}
    first = await ask(bus, "hold", **body)
    assert await ask(bus, "hold", **body) == first
    assert (await ask(bus, "hold-ls"))["holds"] == [first]
    refused = await bus.request(subjects.api("acme", "eve", "hold-rm"), b'{"hold": "mine"}', timeout=6)
    assert (refused.headers or {})["Nats-Service-Error-Code"] == "403"
    assert (await ask(bus, "hold-rm", hold="mine"))["ok"]
    assert (await ask(bus, "hold-ls"))["holds"] == []
    assert (await ask(bus, "hold-rm", hold="mine"))["code"] == "404"
    assert (await started(bus, host)).hold == ""


async def test_a_hold_for_somebody_who_could_not_enter_is_refused(bus: Bus, scheduler: Scheduler) -> None:
    no_key = await ask(bus, "hold", project="web", user="bob")
    assert (no_key["code"], no_key["error"]) == ("403", "ssh_no_key")
    assert "bob" in no_key["message"] and "pitstop keys add" in no_key["message"]
    locked = await ask(bus, "hold", project="locked")
    assert (locked["code"], locked["error"]) == ("403", "ssh_disabled")
    for body, field in (({}, "project"), ({"project": "web", "count": 0}, "count"),
                        ({"project": "web", "seconds": 1e9}, "seconds")):  # fmt: skip
        wrong = await ask(bus, "hold", **body)
        assert (wrong["code"], wrong["errors"][0]["pointer"]) == ("400", f"/{field}")


async def settled(bus: Bus) -> bool:
    return (await check(bus)).wrong == []
