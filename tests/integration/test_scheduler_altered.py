"""Owners that are killed between a commit and its effects, and services whose clock is off by minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.played_host import KEY, PlayedHost, Scheduler, ask, request, until

from pitstop_common import messages as m
from pitstop_common import streams
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import Delivery, read_all
from pitstop_scheduler.verify import check

AHEAD, BEHIND = 600, -600
WINDOW = 2.0
EARLY = 0.5
"""Seconds before its time at which the log takes a deadline for due."""


class Altered(Scheduler):
    """A process of tests/altered.py."""

    def __init__(self, url: str, folder: Path, name: str, service: str, **altered: str) -> None:
        super().__init__(url, folder, name)
        self.service = service
        self.env |= {f"ALTERED_{key.upper()}": value for key, value in altered.items()}
        self.env["PYTHONPATH"] = os.pathsep.join(sys.path)

    async def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.altered", self.service], env=self.env)
        await until(self.ready.exists)


@pytest.fixture
def running() -> Iterator[list[Scheduler]]:
    """Whatever is in it is gone at the end."""
    everyone: list[Scheduler] = []
    yield everyone
    for one in everyone:
        if one.process is not None:
            one.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("subject", "sent"), [("run.queued", 0), ("work.pool", 1), ("run.finished", 0)], ids=["queued", "start", "finished"]
)
async def test_what_a_dead_owner_had_not_published_is_published_once(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path, running: list[Scheduler], subject: str, sent: int
) -> None:
    """Killed after the commit, when none or one of the effects of its record is out."""
    told = tmp_path / "died"
    dying = Altered(nats_server.url(), tmp_path, "dying", "scheduler", death=f"{subject},{sent},{told}")
    heir = Scheduler(nats_server.url(), tmp_path, "heir")
    running += [dying, heir]
    await dying.start()
    await heir.start()
    host = PlayedHost(bus)
    try:
        await host.announce(2)
        for name in ("a", "b"):
            await bus.store_surely("run.requested", request(name), {"Nats-Msg-Id": name})
        for _ in range(2):
            start = await host.take()
            await host.report(m.JobClaimed, start)
            await host.report(m.JobFinished, start, result="success")
        assert dying.process is not None
        await until(lambda: dying.process and dying.process.poll())
        assert told.exists(), "it was not killed where it was to be"
        dying.process = None
        events = await until(lambda: all_told(bus))
        assert Counter(one.subject.rsplit(".", 2)[0] for one in events) == dict.fromkeys(
            ("run.queued", "run.started", "run.finished"), 2
        )
        starts = (await bus.js.stream_info(streams.WORK)).state
        assert (starts.last_seq, starts.messages) == (2, 0), "one start a job, however often it was sent"
        assert (await check(bus)).wrong == []
    finally:
        await host.close()


async def all_told(bus: Bus) -> list[Delivery]:
    """The events, as soon as both runs have ended by them."""
    events = await read_all(bus, streams.EVENTS, None)
    return events if sum(one.subject.startswith("run.finished") for one in events) == 2 else []


async def test_deadlines_are_right_on_machines_whose_clocks_are_off_by_minutes(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path, running: list[Scheduler]
) -> None:
    """Owner and janitor on such machines; then the owner is killed, and one whose clock is off the other way takes
    over in the middle of the session."""
    one = Altered(nats_server.url(), tmp_path, "one", "scheduler", clock=str(AHEAD))
    two = Altered(nats_server.url(), tmp_path, "two", "scheduler", clock=str(BEHIND))
    janitor = Altered(nats_server.url(), tmp_path, "janitor", "janitor", clock=str(BEHIND))
    running += [one, two, janitor]
    for service in (one, janitor, two):
        await service.start()
    host = PlayedHost(bus)
    try:
        await host.announce(1)
        for name in ("a", "b"):
            ssh = {"pause": "on_failure", "connect_window": WINDOW, "keys": [KEY]}
            await bus.store_surely("run.requested", request(name, ssh=ssh), {"Nats-Msg-Id": name})
            start = await host.take()
            await host.report(m.JobClaimed, start)
            await host.report(m.SandboxReady, start)
            await host.report(m.JobPaused, start, reason="on_failure", step=1, so_far="failure")
            if name == "b":  # its deadline is armed by the one, and decided on by the other
                await until(lambda: armed(bus))
                one.end(signal.SIGKILL)
            await stopping(bus, start.run)
            await host.report(m.JobFinished, start, result="failure")
            paused, expired = (
                await stored(bus, "job.paused", start.run),
                await stored(bus, "session.expired", start.run),
            )
            assert WINDOW - EARLY <= expired - paused < WINDOW + 30, "by the time stamps of the server"
            (job,) = (await ask(bus, "status", run=start.run))["jobs"]
            assert job["job"]["reason"] == "connect_window"
    finally:
        await host.close()
    assert (two.end(), janitor.end()) == (0, 0)


async def armed(bus: Bus) -> bool:
    return bool(await read_all(bus, streams.TIMERS, "timer.session.>"))


async def stopping(bus: Bus, run: str) -> None:
    async def is_stopping() -> bool:
        found = await ask(bus, "status", run=run)
        return "jobs" in found and found["jobs"][0]["job"]["status"] in {"stopping", "finished"}

    await until(is_stopping)


async def stored(bus: Bus, fact: str, run: str) -> float:
    """When the server stored the first such fact."""
    return (await read_all(bus, streams.IN, f"in.*.{fact}.*.{run}"))[0].stored
