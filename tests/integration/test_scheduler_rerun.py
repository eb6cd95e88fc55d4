"""Reruns through a real scheduler: linked both ways, also when the log has forgotten the first run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.patience import PATIENCE
from tests.played_host import KEY, PlayedHost, Scheduler, ask, playing, scheduling, until

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import read_all
from pitstop_common.spec import RunSpec
from pitstop_common.streams import EVENTS, SPECS
from pitstop_scheduler.verify import check

WORKFLOW = "jobs:\n  build: {steps: [{run: make}]}\n  lint: {steps: [{run: make lint}]}\n"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9oSQwF0s9GFMb0o0i3ZU5FQIABeQIVr0pE8GjasSE1"


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with scheduling(nats_server.url(), tmp_path, ssh_disabled="acme/locked") as one:
        yield one


@pytest.fixture
async def host(bus: Bus) -> AsyncIterator[PlayedHost]:
    async with playing(bus, 9) as played:
        yield played


async def ended(bus: Bus, host: PlayedHost, **body: Any) -> str:
    """A run of two jobs, of which `build` has failed; it has left the fold."""
    run: str = (await ask(bus, "run", org="acme", project="web", workflow=WORKFLOW, **body))["run"]
    for _ in range(2):
        start = await host.take()
        await host.report(m.JobClaimed, start)
        result: m.Result = "failure" if start.job.endswith("-1") else "success"
        await host.report(m.JobFinished, start, result=result)
    await until(lambda: is_over(bus, run))
    return run


async def is_over(bus: Bus, run: str) -> bool:
    status = await ask(bus, "status", run=run)
    return "run" in status and status["run"]["status"] == "finished"


async def spec(bus: Bus, run: str) -> RunSpec:
    (found,) = await read_all(bus, SPECS, subjects.spec("acme", run))
    return msgspec.json.decode(found.data, type=RunSpec)


async def test_the_failed_job_again_linked_both_ways_and_again_after_that(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    first = await ended(bus, host)
    await ended(bus, host)  # another record, after which the log forgets the first
    second = await ask(bus, "rerun", run=first, failed=True, id="second")
    assert list(second["jobs"]) == ["build"] and second["rerun_of"] == first
    assert (await ask(bus, "rerun", run=first, failed=True, id="second"))["duplicate"]
    third = await ask(bus, "rerun", run=second["jobs"]["build"])
    await until(lambda: links(bus, first, [second["run"]]))
    await until(lambda: links(bus, second["run"], [third["run"]]))
    status = await ask(bus, "status", run=second["run"])
    assert (status["run"]["rerun_of"], status["run"]["actor"]) == (first, "ada")
    assert (await ask(bus, "status", run=first))["reruns"][0]["actor"] == "ada"
    queued = [m.decode_event(one.data) for one in await read_all(bus, EVENTS, "run.queued.>")]
    assert [one.rerun_of for one in queued if isinstance(one, m.RunQueued)] == ["", "", first, second["run"]]


async def links(bus: Bus, run: str, reruns: list[str]) -> bool:
    return [one["run"] for one in (await ask(bus, "status", run=run))["reruns"]] == reruns


async def test_links_outlive_a_killed_scheduler_and_are_one_each(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    first = await ended(bus, host)
    asked = [asyncio.create_task(ask(bus, "rerun", run=first, id=f"r{n}")) for n in range(8)]
    runs = [one["run"] for one in await asyncio.gather(*asked)]
    scheduler.end(9)
    await scheduler.start()

    async def all_there() -> bool:
        found = [one["run"] for one in (await ask(bus, "status", run=first))["reruns"]]
        assert len(found) == len(set(found))
        return sorted(found) == sorted(runs)

    await until(all_there)
    assert (await check(bus)).wrong == []


async def test_by_message_with_the_session_of_the_first_but_not_its_people(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await ask(bus, "keys-add", key=KEY)
    first = await ended(bus, host, ssh={"pause": "on_failure", "keys": [OTHER_KEY], "users": ["bob"]})
    body = {"id": "again", "org": "acme", "project": "web", "rerun_of": first, "actor": "ada", "jobs": ["lint"]}
    await bus.nc.publish("run.requested", json.dumps(body).encode())
    start = await host.take()
    made = await spec(bus, start.run)
    assert [(job.key, job.pause.on_failure) for job in made.jobs] == [("lint", True)]
    assert (made.session.users, made.session.keys, made.actor, made.rerun_of) == ((), (), "ada", first)
    access = m.AccessRequest(job=start.job)
    reply = json.loads((await bus.request("svc.access", m.encode(access))).data)
    assert [key["user"] for key in reply["allowed"]] == ["ada"]


async def test_where_ssh_is_disabled_now_it_runs_without_and_says_so(
    bus: Bus, scheduler: Scheduler, host: PlayedHost, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    await ask(bus, "keys-add", key=KEY)
    first = await ended(bus, host, ssh={"pause": "on_failure"})
    assert scheduler.end() == 0
    scheduler.env["PITSTOP_SSH_DISABLED"] = "acme/web"
    await scheduler.start()
    again = await ask(bus, "rerun", run=first)
    (note,) = again["notes"]
    assert note.startswith("SSH is disabled for project acme/web") and note.endswith("this run offers no session")
    assert (await ask(bus, "status", run=again["run"]))["notes"] == again["notes"]
    assert not any(job.pause.any for job in (await spec(bus, again["run"])).jobs)
    refused = await ask(bus, "rerun", run=first, ssh={"pause": "at_end"})
    assert (refused["code"], refused["error"]) == ("403", "ssh_disabled")


async def test_what_cannot_be_done_again_is_said(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    first = await ended(bus, host, ssh={"pause": "on_failure", "keys": [OTHER_KEY]})
    unknown = await ask(bus, "rerun", run="aaaaaaaaaaaa")
    assert unknown["code"] == "404" and "there is no run aaaaaaaaaaaa in org acme" in unknown["message"]
    stranger = subjects.api("beta", "eve", "rerun")
    for _ in range(2):  # once known to the scheduler, still not to others
        foreign = await bus.request(stranger, json.dumps({"run": first}).encode(), timeout=6)
        assert (foreign.headers or {})["Nats-Service-Error-Code"] == "404"
        no_key = await ask(bus, "rerun", run=first)
        assert (no_key["code"], no_key["error"]) == ("403", "ssh_no_key")
        assert "--no-ssh" in no_key["message"]
    assert "run" in await ask(bus, "rerun", run=first, ssh={})
    rejected = await bus.nc.subscribe("run.rejected")
    await bus.nc.flush()
    body = {"id": "x", "org": "beta", "project": "web", "rerun_of": first}
    await bus.nc.publish("run.requested", json.dumps(body).encode())
    event = m.decode_event((await rejected.next_msg(timeout=PATIENCE)).data)
    assert isinstance(event, m.RunRejected)
    assert [fault.pointer for fault in event.errors] == ["/rerun_of"]
    assert "no run" in event.errors[0].message and event.request == "x"
    living = (await ask(bus, "run", org="acme", project="web", workflow=WORKFLOW))["run"]
    early = await ask(bus, "rerun", run=living, failed=True)
    assert (early["code"], early["errors"][0]["pointer"]) == ("400", "/failed")
