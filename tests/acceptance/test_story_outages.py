"""Outages: one shorter than 90 s kills no job, whatever is away; a longer one of a host ends its jobs, and only once.

Real time: the first story takes a little over a minute, in which all three outages go on at once, in two systems.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError
from tests.acceptance.support.outside import PROMPT, Done, Outside, Place, Run, outside, running
from tests.cli_system import processes_of
from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_common.embedded import die_with_parent
from pitstop_common.errors import Unavailable

OUTAGE = 60.0
LINES = 140
COUNT = f"for i in $(seq 1 {LINES}); do echo line $i; sleep 0.5; done"
"""Longer than the outage."""
SECONDS = 60.0
GRACE, LOST_AFTER = 3.0, 6.0
"""Instead of 90 and 120 s."""


class Host:
    """A sandbox host of its own, in the pool `own`, beside the one of `pitstop up`: one that can be away."""

    def __init__(self, place: Place, folder: Path, **settings: str) -> None:
        self.folder = folder
        folder.mkdir()
        self._ready = folder / "ready"
        tls = place.home.dir / "tls"
        self._env = {
            "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": place.url("sandbox"), "PITSTOP_DIR": str(folder / "state"),
            "PITSTOP_POOL": "own", "PITSTOP_HOST_ID": "own-1", "PITSTOP_TLS_CA": str(tls / "ca.pem"),
            "PITSTOP_TLS_CERT": str(tls / "host.pem"), "PITSTOP_TLS_KEY": str(tls / "host.key"),
            "PITSTOP_SSH_PUBLIC": f"127.0.0.1:{place.facts['ssh']['port']}", "PITSTOP_HTTP": "127.0.0.1:0",
            "PITSTOP_SSH_KNOWN_HOSTS": str(place.home.dir / "known_hosts"), "PITSTOP_READY_FILE": str(self._ready),
            **settings,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def jobs(self) -> list[Path]:
        return list((self.folder / "state" / "jobs").iterdir())

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "pitstop"), "serve", "sandbox"], env=self._env, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
            )  # fmt: skip
        wait_until(self._ready.exists, PATIENCE)

    def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.terminate()
        return process.wait(35)


@contextlib.contextmanager
def own_host(place: Place, folder: Path, **settings: str) -> Iterator[Host]:
    """For the length of a block; nothing may be left of it."""
    host = Host(place, folder, **settings)
    try:
        host.start()
        yield host
        assert host.end() == 0
        wait_until(lambda: processes_of(folder) == {}, PATIENCE)
    finally:
        host.kill()


async def becomes(run: Run, wanted: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The status of its only job once it is so, whoever is away meanwhile."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(NatsError, OSError, ValueError, KeyError):
                (entry,) = (await run.status())["jobs"]
                if entry["job"]["status"] == wanted:
                    return dict(entry)
            await asyncio.sleep(0.1)


async def has_lines(run: Run, count: int) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(Unavailable, NatsError):
                if len(await run.log(1)) >= count:
                    return
            await asyncio.sleep(0.05)


async def gets_in(run: Run, *command: str) -> Done:
    """A person who was thrown out tries until the door opens again."""
    async with asyncio.timeout(SECONDS):
        while (done := await run.ssh(*command)).status == 255:
            await asyncio.sleep(0.2)
    return done


async def went_on(run: Run) -> None:
    """The running job came to its end by itself, in its first attempt, with all that it said."""
    entry = await becomes(run, "finished")
    assert (entry["job"]["result"], entry["job"]["attempt"]) == ("success", 1), entry
    assert await run.log(1) == [f"line {number}" for number in range(1, LINES + 1)]


async def nobody_was_lost(place: Place, anybody: Outside) -> None:
    assert await anybody.stored("IN", "in.*.sandbox.lost.>") == []
    assert place.home.json("verify")["wrong"] == []


async def nats_and_janitor(place: Place) -> None:
    """NATS answers nobody for a minute, and the janitor is stopped for the same time."""
    async with outside(place) as anybody:
        going = await anybody.request(COUNT, org="goes")
        waits = await anybody.request("true", "echo after", org="waits", ssh={"pause": "after_step", "step": 1})
        await waits.paused()
        await has_lines(going, 3)
    with waits.shell() as screen:
        await screen.until(PROMPT)
        screen.type("kept=mine; echo re''ady\n")
        await screen.until("ready")
        away = [place.pid("nats-server"), place.pid("janitor")]
        until = time.monotonic() + OUTAGE
        for pid in away:
            os.kill(pid, signal.SIGSTOP)
        try:
            screen.type("echo meanw''hile $kept\n")
            await screen.until("meanwhile mine")  # bytes of a terminal do not go over NATS
            await asyncio.sleep(until - time.monotonic())
        finally:
            for pid in away:
                os.kill(pid, signal.SIGCONT)
        assert [place.pid("nats-server"), place.pid("janitor")] == away
        async with outside(place) as anybody:  # it does not hang over the outage itself
            going.outside = waits.outside = anybody
            await becomes(waits, "paused")
            screen.type("echo still $kept; exit\n")
            await screen.until("still mine")
            assert await screen.ended() == 0
            assert (await becomes(waits, "finished"))["job"]["result"] == "success"
            await went_on(going)
            await nobody_was_lost(place, anybody)


async def host_process(place: Place, anybody: Outside, host: Host) -> None:
    """A host process is killed, and started a minute later; the janitor looks on all the time."""
    going = await anybody.request(COUNT, org="goes", pool="own")
    waits = await anybody.request("true", "echo after", org="waits", pool="own",
                                  ssh={"pause": "after_step", "step": 1})  # fmt: skip
    await waits.paused()
    await has_lines(going, 3)
    with waits.shell() as screen:
        await screen.until(PROMPT)
        screen.type("echo $$ >shell; echo re''ady\n")
        await screen.until("ready")
        until = time.monotonic() + OUTAGE
        host.kill()
        await screen.ended()
        await asyncio.sleep(until - time.monotonic())
    await asyncio.to_thread(host.start)
    alive = await gets_in(waits, "kill -0 $(cat shell) && echo alive")
    assert alive.out == "alive\n", alive
    assert (await becomes(waits, "paused"))["job"]["attempt"] == 1
    await gets_in(waits, "pitstop-step continue")
    assert (await becomes(waits, "finished"))["job"]["result"] == "success"
    await went_on(going)
    assert len(await anybody.stored("IN", f"in.*.job.claimed.goes.{going.id}")) == 2
    await nobody_was_lost(place, anybody)


@pytest.mark.timeout(300)
async def test_an_outage_of_a_minute_kills_no_job(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        running(tmp_path / "one", "--slots", "4") as one,
        running(tmp_path / "two", "--slots", "4") as two,
        own_host(two, tmp_path / "host") as host,
    ):
        async with outside(two) as there, asyncio.TaskGroup() as group:
            group.create_task(nats_and_janitor(one))
            group.create_task(host_process(two, there, host))


# -- longer than that, with shorter times ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    more = {"PITSTOP_HOST_LOST_AFTER": str(LOST_AFTER), "PITSTOP_SCAN_INTERVAL": "0.5",
            "PITSTOP_HEARTBEAT_INTERVAL": "0.5"}  # fmt: skip
    with running(tmp_path_factory.mktemp("impatient"), "--slots", "4", more=more) as made:
        yield made


@pytest.fixture
def host(impatient: Place, tmp_path: Path) -> Iterator[Host]:
    settings = {"PITSTOP_ORPHAN_GRACE": str(GRACE), "PITSTOP_HEARTBEAT_INTERVAL": "0.5"}
    with own_host(impatient, tmp_path / "host", **settings) as made:
        yield made


@pytest.fixture
async def anybody(impatient: Place) -> AsyncIterator[Outside]:
    async with outside(impatient) as someone:
        yield someone


async def lost_in_this_order(run: Run, host: Host) -> None:
    """Its holder ends the job first; the janitor speaks after that; the log ends it once, and frees its slot."""
    ended = host.folder / "state" / "jobs" / f"{run.job}.1" / "holder" / "ended.json"
    wait_until(ended.exists, SECONDS)
    died = json.loads(ended.read_text())
    entry = await becomes(run, "finished")
    assert (entry["job"]["result"], entry["job"]["reason"]) == ("error", "host_lost")
    said = (await run.outside.stored("IN", "in.*.sandbox.lost.>"))[-1]
    assert died["time"] < said.stored
    listed = await run.outside.api("ls", org=run.org)
    assert (listed["jobs"], listed["slots"]["used"]) == ([], 0)


async def test_a_host_that_stays_away_ends_its_jobs_before_it_is_called_lost(anybody: Outside, host: Host) -> None:
    run = await anybody.request("sleep 600", org="killed", pool="own")
    await run.hear("step.started")
    host.kill()
    await lost_in_this_order(run, host)
    wait_until(lambda: processes_of(host.folder) == {}, PATIENCE)
    await asyncio.to_thread(host.start)
    wait_until(lambda: host.jobs == [], PATIENCE)
    again = await anybody.request("echo back", org="killed", pool="own")
    assert await again.finished() == "success"


async def test_a_host_process_that_is_stopped_for_longer_is_no_different(anybody: Outside, host: Host) -> None:
    """It lives, and its holder's connection with it; it says nothing. When it goes on, the job must not."""
    run = await anybody.request("sleep 600", "echo never", org="stopped", pool="own")
    await run.hear("step.started")
    host.signal(signal.SIGSTOP)
    try:
        await lost_in_this_order(run, host)
    finally:
        host.signal(signal.SIGCONT)
    wait_until(lambda: host.jobs == [], SECONDS)
    again = await anybody.request("echo back", org="stopped", pool="own")
    assert await again.finished() == "success"
    assert run.all("step.started", step=2) == []
    assert len(await anybody.stored("EVENTS", f"run.finished.stopped.{run.id}")) == 1


def test_all_of_it_is_proved(impatient: Place) -> None:
    assert impatient.home.json("verify")["wrong"] == []
