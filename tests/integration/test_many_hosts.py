"""A real scheduler and several real hosts of two pools, in the test's process: which of them gets which job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.played_host import Scheduler, ask, until
from tests.sandbox_hosts import Stage, host

from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    made = Scheduler(nats_server.url(), tmp_path, "one")
    await made.start()
    yield made
    assert made.end() == 0


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
