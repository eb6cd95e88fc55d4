"""`pause` through a real scheduler that dies in between: what the host is told, who may enter. Row B9."""

from __future__ import annotations

import json
import signal
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
    async with playing(bus, 2) as played:
        yield played


async def requested(bus: Bus, project: str = "web") -> str:
    """A run of somebody else, which asks for no session."""
    body = {"org": "acme", "project": project, "steps": [{"name": "build", "run": "make"}, {"run": "make test"}]}
    reply = await bus.request(subjects.api("acme", "eve", "run"), json.dumps(body).encode(), timeout=6)
    return str(json.loads(reply.data)["run"])


async def started(bus: Bus, host: PlayedHost, project: str = "web") -> m.Start:
    await requested(bus, project)
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)
    await until(lambda: is_(bus, start, "running"))
    return start


async def job(bus: Bus, start: m.Start) -> dict[str, Any]:
    return dict((await ask(bus, "status", run=start.run))["jobs"][0]["job"])


async def is_(bus: Bus, start: m.Start, status: str) -> bool:
    return bool((await job(bus, start))["status"] == status)


async def told(host: PlayedHost, revision: int) -> m.Pause:
    """The command of that revision; a new owner of the log may say an older one again."""
    while True:
        (delivery,) = await until(lambda: host.commands.next(1, 1))
        command = m.decode_command(delivery.data)
        await delivery.ack()
        assert isinstance(command, m.Pause) and command.revision <= revision
        if command.revision == revision:
            return command


async def may_enter(bus: Bus, start: m.Start) -> list[str]:
    reply = await bus.request(subjects.service("access"), m.encode(m.AccessRequest(job=start.job)))
    access = msgspec.json.decode(reply.data, type=m.AccessReply)
    return [key.user for key in access.allowed] if access.offers else []


async def test_asked_for_told_to_the_host_and_open_to_who_asked(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await ask(bus, "keys-add", key=KEY)
    start = await started(bus, host)
    answer = await ask(bus, "pause", run=start.run)
    assert answer == {"job": start.job, "run": start.run, "pausing": True, "by": "ada", "step": 0,
                      "steps": ["build", "Run make test"]}  # fmt: skip
    command = await told(host, 1)
    assert (command.by, command.off) == ("ada", False)
    assert await ask(bus, "pause", run=start.job) == answer, "asking again changes nothing, and tells nobody"
    scheduler.end(signal.SIGKILL)
    await scheduler.start()
    await host.report(m.JobPausing, start, step=1, name="build", by="ada", revision=1)
    await until(lambda: shows(bus, start, pausing=True, pausing_by="ada", pausing_step=1))
    assert await may_enter(bus, start) == [], "not before the pause"
    off = await ask(bus, "pause", run=start.job, off=True)
    assert (off["pausing"], (await told(host, 2)).off) == (False, True)
    await ask(bus, "pause", run=start.job)
    assert not (await told(host, 3)).off
    await host.report(m.JobPaused, start, reason="forced", step=1, revision=3)
    await until(lambda: is_(bus, start, "paused"))
    assert await may_enter(bus, start) == ["ada"] and (await job(bus, start))["guests"] == ["ada"]
    entries = (await ask(bus, "audit", run=start.run))["entries"]
    assert [(one["user"], one["what"]) for one in entries if one["type"] == "run.pause"] == [
        ("ada", ""), ("ada", "off"), ("ada", "")
    ]  # fmt: skip
    again = await ask(bus, "pause", run=start.job)
    assert again["code"] == "400" and "paused already" in again["message"]
    await host.report(m.JobFinished, start, result="success")
    await until(lambda: is_(bus, start, "finished"))
    over = await ask(bus, "pause", run=start.job)
    assert over["code"] == "400" and "has ended (success)" in over["message"]
    await until(lambda: proved(bus))


async def test_a_wish_waits_for_the_host_that_claims_the_job(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    await ask(bus, "keys-add", key=KEY)
    await requested(bus)
    start = await host.take()
    assert (await ask(bus, "pause", run=start.run))["pausing"]
    await host.report(m.JobClaimed, start)
    assert (await told(host, 1)).by == "ada"


async def test_what_cannot_be_paused_and_by_whom(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    start = await started(bus, host)
    no_key = await ask(bus, "pause", run=start.run)
    assert (no_key["code"], no_key["error"]) == ("403", "ssh_no_key") and "pitstop keys add" in no_key["message"]
    await ask(bus, "keys-add", key=KEY)
    locked = await ask(bus, "pause", run=(await started(bus, host, "locked")).run)
    assert (locked["code"], locked["error"]) == ("403", "ssh_disabled")
    queued = await ask(bus, "pause", run=await requested(bus))
    assert queued["code"] == "400" and "--ssh-after-step" in queued["message"]
    assert (await ask(bus, "pause", run="aaaaaaaaaaaa"))["code"] == "404"
    assert (await ask(bus, "pause", run=start.run, job="nope"))["code"] == "404"
    await ask(bus, "org-apply", roles={"ada": "admin", "bob": "read"})
    refused = await bus.request(
        subjects.api("acme", "bob", "pause"), json.dumps({"run": start.run}).encode(), timeout=6
    )
    assert (refused.headers or {})["Nats-Service-Error-Code"] == "403"


async def shows(bus: Bus, start: m.Start, **fields: Any) -> bool:
    return fields.items() <= (await job(bus, start)).items()


async def proved(bus: Bus) -> bool:
    return (await check(bus)).wrong == []
