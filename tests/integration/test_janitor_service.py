"""The janitor as a process: ready, seen from outside, told to stop; and a collector that fails alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.janitors import eventually, janitor, value
from tests.patience import PATIENCE

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer, die_with_parent
from pitstop_common.messages import Fired, Heartbeat, encode
from pitstop_common.pull import read_all
from pitstop_common.streams import IN, TIMERS


class Process:
    """A janitor process and its HTTP port."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process, self.url = process, url

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.url + path)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@asynccontextmanager
async def process(nats_url: str, folder: Path) -> AsyncIterator[Process]:
    ready = folder / "ready.json"
    env = os.environ | {"PITSTOP_NATS_URL": nats_url, "PITSTOP_READY_FILE": str(ready)}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pitstop_janitor", env=env, preexec_fn=die_with_parent, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(lambda: ready.exists() or made.returncode is not None)
        yield Process(made, json.loads(ready.read_text())["http"])
    finally:
        if made.returncode is None:
            made.kill()
        await made.wait()


async def test_it_says_when_it_is_ready_and_stops_when_told(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    async with process(nats_server.url(), tmp_path) as one:
        assert await one.get("/readyz") == (200, "ok\n")
        assert await one.get("/livez") == (200, "ok\n")
        status, page = await one.get("/metrics")
        assert status == 200
        assert 'pitstop_janitor_reclaimed_total{kind="session",reason="idle"} 0.0' in page
        assert (await one.get("/"))[0] == 404
        one.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.process.wait(), PATIENCE) == 0


async def test_it_is_not_ready_while_nats_is_away_but_alive(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    async with process(nats_server.url(), tmp_path) as one:
        await nats_server.stop(signal.SIGKILL)
        assert await status_becomes(one, "/readyz", 503) == "NATS is not connected\n"
        assert (await one.get("/livez"))[0] == 200
        assert "pitstop_nats_connected 0.0" in (await one.get("/metrics"))[1]
        await nats_server.start()
        await status_becomes(one, "/readyz", 200)
        assert "pitstop_nats_reconnects_total 1.0" in (await one.get("/metrics"))[1]


async def test_it_stops_in_time_while_nats_is_away(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    async with process(nats_server.url(), tmp_path) as one:
        await nats_server.stop(signal.SIGKILL)
        await status_becomes(one, "/readyz", 503)
        one.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.process.wait(), 25) == 0


async def test_wrong_settings_end_it_with_all_faults_named() -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("PITSTOP_")}
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pitstop_janitor", env=env | {"PITSTOP_SCAN_INTERVAL": "soon"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await made.communicate()
    assert made.returncode == 2
    assert b"PITSTOP_NATS_URL is not set" in told and b"PITSTOP_SCAN_INTERVAL='soon'" in told


async def test_a_collector_that_fails_is_counted_and_stops_no_other(bus: Bus, nats_server: EmbeddedServer) -> None:
    async with janitor(nats_server, scan_interval=0.1) as runtime:
        await eventually(lambda: value(runtime, "last_success_timestamp_seconds", collector="expiry") > 0)
        await bus.js.delete_stream(TIMERS)
        await eventually(lambda: value(runtime, "sweep_errors_total", collector="expiry") >= 1)
        looks = value(runtime, "sweep_seconds_count", collector="lost_hosts")
        await eventually(lambda: value(runtime, "sweep_seconds_count", collector="lost_hosts") > looks + 1)
        for other in ("lost_hosts", "starts", "poison", "inventory", "stale_keys"):
            assert value(runtime, "sweep_errors_total", collector=other) == 0


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 4.0), (signal.SIGKILL, 8.0)])
async def test_deadlines_are_said_once_though_a_janitor_ends_among_them(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path, number: int, seconds: float
) -> None:
    jobs = [f"abcdefghijkl-{count}" for count in range(1, 301)]
    async with process(nats_server.url(), tmp_path) as dying, janitor(nats_server) as other:
        for job in jobs:
            fired = Fired(org="acme", run="abcdefghijkl", project="p", request="r", job=job, attempt=1, reason="idle",
                          revision=1)  # fmt: skip
            await bus.send(subjects.fired("idle", job, 1), encode(fired))
            if job.endswith("-150"):
                dying.process.send_signal(number)
        await eventually(lambda: value(other, "reclaimed_total", kind="session", reason="idle") > 0, seconds)
        facts: list[str] = []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while len(facts) < len(jobs):
            assert loop.time() < deadline, f"{len(facts)} of {len(jobs)}"
            stored = await read_all(bus, IN, subjects.facts_of(0))
            facts = [json.loads(item.data)["job"] for item in stored]
        assert sorted(facts) == sorted(jobs)


async def status_becomes(one: Process, path: str, wanted: int) -> str:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        status, page = await one.get(path)
        if status == wanted:
            return page
        assert loop.time() < deadline, f"{path} stays {status}"
        await asyncio.sleep(0.02)


async def test_each_pass_says_how_much_it_saw(bus: Bus, nats_server: EmbeddedServer) -> None:
    beat = Heartbeat(host="h", incarnation="1", pool="default", capacity=3, beat=1, jobs=(("abcdefghijkl-1", 1),),
                     leftovers=(("folder", "abcdefghijkl-2.1"),))  # fmt: skip
    await Bucket(bus, "hosts").put("h", encode(beat))
    async with janitor(nats_server, scan_interval=0.05, inventory_interval=0.05) as runtime:
        await eventually(lambda: value(runtime, "seen", collector="lost_hosts") == 1)
        await eventually(lambda: value(runtime, "seen", collector="inventory") == 2)
