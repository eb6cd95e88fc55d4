"""Many live sessions: what a pass of the janitor costs, and how soon the slot of an expired one is used again.

Real server, scheduler and janitor, each a process; a played host whose jobs wait with somebody inside. The CPU is that
of the collectors' own code in this process, with nothing else to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from pathlib import Path
from typing import Any, Final

from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from tests.bench.amounts import Amounts
from tests.bench.played import CAPACITY, HOST, INCARNATION, LEFT, POOL, SESSIONS
from tests.bench.processes import ALL, program, served, service
from tests.bench.report import Row, median, row

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.messages import Heartbeat, OrgConfigured, encode
from pitstop_common.provision import provision
from pitstop_common.telemetry import headers
from pitstop_janitor.collectors.inventory import Inventory
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.collectors.lost_hosts import LostHosts
from pitstop_janitor.collectors.stale_keys import StaleKeys
from pitstop_janitor.collectors.starts import Starts
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics

MOST_CPU_MS: Final = 100
MOST_LATE_MS: Final = 1000
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
_ORGS: Final = 16
_WINDOW: Final = 200
_CONNECT: Final = 3
"""Seconds until somebody has to come."""
_SECONDS: Final = 240


async def measure(folder: Path, amounts: Amounts) -> list[Row]:
    """With all sessions live."""
    folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(folder))
        bus = await stack.enter_async_context(connected(server.url(ALL), "bench"))
        await provision(bus)
        for name in ("scheduler", "janitor"):
            await stack.enter_async_context(service(name, folder / name, server))
        await stack.enter_async_context(program("tests.bench.played", server.url("sandbox")))
        heard = Heard(bus)
        await heard.listen()
        async with asyncio.timeout(_SECONDS):
            await _open(heard, amounts.sessions)
            first, passes = await _passes(bus, server.url(ALL), amounts)
            late, told = await _free(heard, amounts.freed)
    live = f"{amounts.sessions:,} live sessions"
    return [
        row("janitor's pass, live sessions", median(passes), first, most=MOST_CPU_MS, of="ours",
            note=f"{live}; CPU of all collectors that look around; other: their first pass, which reads all"),
        row("deadline to the next run's start", max(late), max(told), most=MOST_LATE_MS, of="ours",
            note=f"{live}; the latest of {len(late)}, median {median(late):.0f} ms; other: to session.expired"),
    ]  # fmt: skip


class Heard:
    """What is said of runs, with the time it came."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._times: dict[tuple[str, str], float] = {}
        self.jobs: list[tuple[str, int]] = []
        """With somebody inside."""
        self._told: dict[tuple[str, str], asyncio.Future[float]] = {}

    async def listen(self) -> None:
        """To everything that is waited for here."""
        for name in ("ssh.connected", "job.paused", "session.expired", "run.started", "run.queued"):
            await self.bus.subscribe(name, self._heard)
        await self.bus.nc.flush()

    async def _heard(self, msg: Msg) -> None:
        body = json.loads(msg.data)
        key = (body["type"], body["request"])
        self._times.setdefault(key, time.monotonic())
        if body["type"] == "ssh.connected":
            self.jobs.append((body["job"], body["attempt"]))
        if key in self._told and not self._told[key].done():
            self._told[key].set_result(self._times[key])

    async def when(self, type_: str, request: str) -> float:
        """The monotonic time at which it was heard."""
        key = (type_, request)
        if key not in self._times:
            self._told[key] = asyncio.get_running_loop().create_future()
            await self._told[key]
        return self._times[key]

    async def ask(self, org: str, project: str, **ssh: Any) -> str:
        """Request a run. The request's id."""
        request = uuid.uuid4().hex
        body: dict[str, Any] = {
            "id": request, "org": org, "project": project, "pool": POOL, "actor": "ada", "steps": [{"run": "true"}],
            **({"ssh": {"pause": "at_end", "keys": [_KEY], **ssh}} if ssh else {}),
        }  # fmt: skip
        await self.bus.store(subjects.RUN_REQUESTED, json.dumps(body).encode(), {"Nats-Msg-Id": request}, 5.0)
        return request


async def _open(heard: Heard, sessions: int) -> None:
    room = asyncio.Semaphore(_WINDOW)

    async def one(number: int) -> None:
        async with room:
            request = await heard.ask(f"org-{number % _ORGS}", SESSIONS, idle_timeout=3600, max_duration=7200)
            await heard.when("ssh.connected", request)

    await asyncio.gather(*(one(number) for number in range(sessions)))
    beat = Heartbeat(host=HOST, incarnation=INCARNATION, pool=POOL, capacity=CAPACITY, beat=2, jobs=tuple(heard.jobs))
    await Bucket(heard.bus, "hosts").put(HOST, encode(beat))


async def _passes(bus: Bus, url: str, amounts: Amounts) -> tuple[float, list[float]]:
    """CPU ms of the first pass, and of the ones after. The read models trail the log: all have to be there."""
    config, metrics = JanitorConfig(nats_url=url), JanitorMetrics(CollectorRegistry())
    there = OpenJobs(bus)
    while len(there.views) < amounts.sessions:
        await there.follow()
        await asyncio.sleep(0.2)
    jobs = OpenJobs(bus)
    starts = Starts(bus, metrics, config, jobs)
    collectors = (starts, LostHosts(bus, metrics, config), Inventory(bus, metrics, config, jobs),
                  StaleKeys(bus, metrics, config, jobs))  # fmt: skip
    took: list[float] = []
    while len(took) <= amounts.passes:
        begun = time.process_time()
        swept = [await one.sweep() for one in collectors]
        took.append((time.process_time() - begun) * 1000)
        assert swept[0].seen == amounts.sessions and not any(one.freed for one in swept), swept
    return took[0], took[1:]


async def _free(heard: Heard, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the deadline of a session to the start of the run that waits for its slot, and to its end."""

    async def one(number: int) -> tuple[float, float]:
        org = f"tight-{number}"
        fact = OrgConfigured(id=f"limits-{org}", time="", org=org, run=subjects.NOBODY, slots=1)
        await heard.bus.store_surely(
            subjects.about("org.configured", org, subjects.NOBODY), encode(fact), headers(fact.id)
        )  # fmt: skip
        held = await heard.ask(org, LEFT, connect_window=_CONNECT)
        deadline = await heard.when("job.paused", held) + _CONNECT
        waits = await heard.ask(org, "bench")
        await heard.when("run.queued", waits)
        assert time.monotonic() < deadline, "the machine is too slow for this"
        expired, started = await heard.when("session.expired", held), await heard.when("run.started", waits)
        return (started - deadline) * 1000, (expired - deadline) * 1000

    both: list[tuple[float, float]] = await asyncio.gather(*(one(number) for number in range(count)))
    return [late for late, _ in both], [told for _, told in both]
