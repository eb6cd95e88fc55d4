"""A host is killed for good, with real sandboxes: its job is tried again on another, and never runs twice at a time."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_sandbox_service_process import processes_of
from tests.janitors import janitor
from tests.played_host import Scheduler, ask, scheduling, until
from tests.sandbox_hosts import There

from pitstop_common import messages as m
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import read_all
from pitstop_common.streams import EVENTS, LOGS
from pitstop_scheduler.verify import check

GRACE = 2.0
"""Seconds in which a holder without its host gives up; the host is called lost after much more."""
LOST_AFTER = 8.0


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with scheduling(nats_server.url(), tmp_path, org_slots="1") as one:
        yield one


def host(server: EmbeddedServer, folder: Path, name: str) -> There:
    return There(server.url(), folder / name, host_id=name, sandbox="namespaces", jobs_at_stop="end", capacity="1",
                 heartbeat_interval="0.2", orphan_grace=str(GRACE), sandbox_paths=str(folder / "gates"))  # fmt: skip


async def job_of(bus: Bus, run: str) -> dict[str, Any]:
    entry = (await ask(bus, "status", run=run))["jobs"][0]
    return {**entry["job"], "message": entry["message"], "report": entry["report"]}


async def test_a_job_outlives_its_host_once_in_its_old_place(
    bus: Bus, nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    first, second = host(nats_server, tmp_path, "host-a"), host(nats_server, tmp_path, "host-b")
    body = {"org": "acme", "project": "web", "retry": "infrastructure",
            "steps": [{"run": f"echo begun; while [ ! -e {gates}/open ]; do sleep 0.05; done; echo done"}]}  # fmt: skip
    async with janitor(nats_server, host_lost_after=LOST_AFTER, scan_interval=0.5, jobs_interval=0.5):
        try:
            await first.start()
            run = (await ask(bus, "run", **body))["run"]
            behind = (await ask(bus, "run", **{**body, "retry": ""}))["run"]
            await until(lambda: begun(bus, run))
            await first.end(signal.SIGKILL)
            await second.start()

            async def tried_again() -> dict[str, Any] | None:
                job = await job_of(bus, run)
                assert job["status"] != "finished", job
                return job if job["attempt"] == 2 else None

            job = await until(tried_again, 60)
            assert processes_of(tmp_path / "host-a") == []  # nothing of the first attempt was left by then
            assert (job["earlier"], (await job_of(bus, behind))["status"]) == (["host_lost"], "queued")
            await until(lambda: begun(bus, run, 2))
            assert (await job_of(bus, run))["host"] == "host-b"
            await first.start()  # it comes back with what it had of the first attempt, and lets go of it
            (gates / "open").touch()

            async def over() -> dict[str, Any] | None:
                jobs = [await job_of(bus, one) for one in (run, behind)]
                return jobs[0] if all(job["status"] == "finished" for job in jobs) else None

            job = await until(over, 60)
            assert (job["result"], job["attempt"], job["earlier"]) == ("success", 2, ["host_lost"])
            await until(lambda: not [*(tmp_path / "host-a" / "state" / "jobs").iterdir()])
            retried = [event for event in await events(bus) if isinstance(event, m.JobRetried)]
            assert [(one.run, one.attempt, one.reason) for one in retried] == [(run, 1, "host_lost")]
        finally:
            assert [await first.end(), await second.end()] == [0, 0]
    checker = await until(lambda: proved(bus))
    assert (len(checker.granted), checker.wrong) == (3, [])
    assert processes_of(tmp_path) == []


async def begun(bus: Bus, run: str, attempt: int = 1) -> bool:
    chunks = [m.decode_chunk(one.data) for one in await read_all(bus, LOGS, f"logs.acme.{run}.*")]
    return any("begun" in chunk.lines and chunk.attempt == attempt for chunk in chunks)


async def events(bus: Bus) -> list[m.Event]:
    return [m.decode_event(one.data) for one in await read_all(bus, EVENTS, None)]


async def proved(bus: Bus) -> Any:
    checker = await check(bus)
    return checker if not checker.wrong else None
