"""A real scheduler and several real hosts of two pools, in the test's process: which of them gets which job."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.played_host import Scheduler, ask, scheduling, until
from tests.sandbox_hosts import Stage, host

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, partitions: int, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with scheduling(nats_server.url(), tmp_path, partitions=str(partitions)) as one:
        yield one


def workflow(runs_on: str, command: str = "echo hello") -> str:
    return f"jobs:\n  build:\n    runs-on: {runs_on}\n    steps:\n      - run: {command}\n"


async def run(id: str, bus: Bus, runs_on: str = "", command: str = "echo hello", **more: Any) -> Any:
    """The answer to a request."""
    steps = {"workflow": workflow(runs_on, command)} if runs_on else {"steps": [{"run": command}]}
    return await ask(bus, "run", id=id, org="acme", project="web", **steps, **more)


async def job_of(bus: Bus, made: dict[str, Any]) -> dict[str, Any]:
    """Its only job."""
    found: dict[str, Any] = (await ask(bus, "status", run=made["run"]))["jobs"][0]
    return found


async def ended(bus: Bus, made: dict[str, Any]) -> str:
    """On which host its job ended."""

    async def look() -> str:
        job = (await job_of(bus, made))["job"]
        return str(job["host"]) if job["status"] == "finished" else ""

    return str(await until(look))


async def test_a_job_goes_where_its_labels_are(bus: Bus, scheduler: Scheduler, nats_server: EmbeddedServer,
                                               tmp_path: Path) -> None:  # fmt: skip
    stage, url = Stage(), nats_server.url()
    early = await run("early", bus, "ubuntu-latest")
    assert early["queue_position"] == 1
    assert (await job_of(bus, early))["reason"] == "no sandbox host of pool default is up"
    async with (
        host(url, tmp_path / "a", stage, host_id="a"),
        host(url, tmp_path / "b", stage, host_id="b", pool="large", labels=("big",)),
    ):
        assert await ended(bus, early) == "a"
        big = await run("big", bus, "[self-hosted, linux, BIG]")
        assert await ended(bus, big) == "b"
        plain = [await run(f"plain{number}", bus, "[self-hosted, linux]") for number in range(3)]
        assert {await ended(bus, made) for made in plain} == {"a"}
        assert await ended(bus, await run("named", bus, "gpu", pool="large")) == "b"  # the request's word counts
        refused = await run("none", bus, "[self-hosted, gpu]")
        assert (refused["code"], refused["errors"][0]["pointer"]) == ("400", "/workflow/jobs/build/runs-on")
        assert "no sandbox host has the label 'gpu'" in refused["message"]
        assert all(name in refused["message"] for name in ("default (", "large (big, ", "1 host up"))
    later = await run("later", bus, "big")
    assert (await job_of(bus, later))["reason"] == "no sandbox host of pool large is up"
    async with host(url, tmp_path / "b", stage, host_id="b", pool="large", labels=("big",)):
        assert await ended(bus, later) == "b"
        again = await ask(bus, "rerun", run=big["run"], id="again")
        assert await ended(bus, again) == "b"


async def test_hosts_of_a_pool_share_its_jobs_and_none_gets_more_than_it_has_room_for(
    bus: Bus, scheduler: Scheduler, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    stage, places = Stage(), {"a": 2, "b": 2, "c": 4}
    async with AsyncExitStack() as stack:
        for name, capacity in places.items():
            await stack.enter_async_context(
                host(nats_server.url(), tmp_path / name, stage, host_id=name, capacity=capacity)
            )
        await until(lambda: free(bus, sum(places.values())))
        made = [await run(f"quick{number}", bus) for number in range(40)]
        shares = Counter([await ended(bus, one) for one in made])
        assert set(shares) == set(places) and min(shares.values()) >= 3, shares  # 10, 10 and 20 by their places
        more = [await run(f"more{number}", bus, command="wait more") for number in range(10)]
        await until(lambda: runs_on(bus, places))
        waiting = [job for job in [await job_of(bus, one) for one in more] if job["job"]["status"] == "queued"]
        assert [job["reason"] for job in waiting] == 2 * [
            "the hosts of pool default have no room (all 8 places are taken)"
        ]  # fmt: skip
        stage.open("more")
        assert {await ended(bus, one) for one in more} == set(places)


@pytest.mark.parametrize("partitions", [1, 4], indirect=True)
async def test_a_drained_host_takes_no_new_job_and_stays_so_over_restarts(
    bus: Bus, scheduler: Scheduler, nats_server: EmbeddedServer, partitions: int, tmp_path: Path
) -> None:
    stage, url = Stage(), nats_server.url()
    settings: dict[str, Any] = {"capacity": 2, "heartbeat_interval": 0.1, "partitions": partitions}
    async with AsyncExitStack() as stack:
        async with host(url, tmp_path / "a", stage, host_id="a", **settings):
            mine = await run("long", bus, command="wait long")
            assert await until(lambda: host_of(bus, mine)) == "a"
            await stack.enter_async_context(host(url, tmp_path / "b", stage, host_id="b", **settings))
            answer = await ask(bus, "hosts-drain", host="a")
            assert (answer["state"], answer["drained"], answer["drained_by"]) == ("draining", True, "acme/ada")
            assert (answer["knows"], answer["running"], answer["free"]) == (True, 1, 0)
            assert answer["jobs"] == [f"{mine['run']}-1"]
            assert {await ended(bus, await run(f"quick{number}", bus)) for number in range(3)} == {"b"}
            stage.open("long")
            assert await ended(bus, mine) == "a"
            await until(lambda: state_of(bus, "a", "drained"))
        assert scheduler.end(signal.SIGKILL) == -signal.SIGKILL
        await scheduler.start()
        assert await until(lambda: state_of(bus, "a", "down"))
        async with host(url, tmp_path / "a", stage, host_id="a", **settings):
            await until(lambda: state_of(bus, "a", "drained"))
            assert {await ended(bus, await run(f"after{number}", bus)) for number in range(3)} == {"b"}
        async with host(url, tmp_path / "new", stage, host_id="a", **settings):  # it has lost its folder
            await until(lambda: state_of(bus, "a", "drained"))
            both = await run("both", bus)
            assert await ended(bus, both) == "b"
            assert (await ask(bus, "hosts-drain", host="b"))["drained"]
            last = await run("last", bus)
            why = "no sandbox host of pool default is up (drained: a, b)"
            assert (await job_of(bus, last))["reason"] == why
            answer = await ask(bus, "hosts-drain", host="a", off=True)
            assert (answer["state"], answer["drained"], answer["knows"]) == ("up", False, True)
            assert await ended(bus, last) == "a"
        assert (await ask(bus, "hosts-drain", host="c"))["code"] == "404"
        assert (await ask(bus, "hosts-drain", host="A B"))["code"] == "400"
        refused = await bus.request(subjects.api("acme", "eve", "hosts-drain"), b'{"host": "b"}', timeout=6)
        assert (refused.headers or {})["Nats-Service-Error-Code"] == "403"


async def hosts(bus: Bus) -> dict[str, dict[str, Any]]:
    return {one["host"]: one for one in (await ask(bus, "hosts-ls"))["hosts"]}


async def free(bus: Bus, places: int) -> bool:
    return bool(sum(one["free"] for one in (await hosts(bus)).values()) == places)


async def runs_on(bus: Bus, jobs: dict[str, int]) -> bool:
    return {name: one["running"] for name, one in (await hosts(bus)).items()} == jobs


async def state_of(bus: Bus, name: str, state: str) -> bool:
    return str((await hosts(bus))[name]["state"]) == state


async def host_of(bus: Bus, made: dict[str, Any]) -> str:
    return str((await job_of(bus, made))["job"]["host"])
