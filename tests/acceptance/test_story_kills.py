"""Kill -9 of anything in the middle of the main story: the run still ends once, nothing of it is lost or left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import Error as NatsError
from tests.acceptance.support.outside import PROMPT, Done, Outside, Place, Run, left, outside, running
from tests.cli_system import Home, processes_of, up
from tests.patience import PATIENCE
from tests.screens import Screen
from tests.whole_system import wait_until

from pitstop_common.embedded import die_with_parent
from pitstop_common.errors import Unavailable

COUNT = "for i in $(seq 1 {lines}); do echo line $i; sleep {pause}; done"
STORY = (
    {"name": "test", "run": "seq -f 'line %g' 300; grep -q 42 answer"},
    {"name": "deploy", "run": COUNT.format(lines=40, pause=0.025)},
)
SECONDS = 60.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("kills"), "--slots", "4", "--org-slots", "1") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def status(run: Run) -> dict[str, Any]:
    """Of its only job; asked until somebody answers."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(NatsError, OSError, ValueError, KeyError):
                (entry,) = (await run.status())["jobs"]
                return dict(entry)
            await asyncio.sleep(0.05)


async def becomes(run: Run, wanted: str) -> dict[str, Any]:
    """Its status once it is so."""
    async with asyncio.timeout(SECONDS):
        while (entry := await status(run))["job"]["status"] != wanted:
            await asyncio.sleep(0.05)
    return entry


def kill(place: Place, name: str) -> None:
    """Kill -9. Returns when `pitstop up` has started it again."""
    pid, before = place.pid(name), len(place.system.said())
    os.kill(pid, signal.SIGKILL)
    words = "nats-server runs again" if name == "nats-server" else f"{name} is ready again"
    wait_until(lambda: words in place.system.said()[before:], PATIENCE)
    assert place.pid(name) != pid


async def has_lines(run: Run, step: int, tries: int, count: int) -> None:
    """So much of its output is stored."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(Unavailable, NatsError):
                if len(await run.log(step, tries)) >= count:
                    return
            await asyncio.sleep(0.02)


async def on_the_prompt(screen: Screen) -> None:
    await screen.until(PROMPT)


async def gets_in(run: Run, *command: str) -> Done:
    """A person who was thrown out tries until the door opens again."""
    async with asyncio.timeout(SECONDS):
        while (done := await run.ssh(*command)).status == 255:
            await asyncio.sleep(0.1)
    return done


async def ended_once(run: Run, result: str = "success") -> None:
    """Its end is said once, its log is whole and in order, its slot is free, and nothing of it runs or lies about."""
    entry = await becomes(run, "finished")
    assert (entry["job"]["result"], entry["job"]["attempt"]) == (result, 1), entry
    ends = await run.outside.stored("EVENTS", f"run.finished.{run.org}.{run.id}")
    assert [json.loads(message.data)["result"] for message in ends] == [result]
    for noun in ("run.queued", "run.started"):
        assert len(await run.outside.stored("EVENTS", f"{noun}.{run.org}.{run.id}")) == 1
    for noun in ("job.finished", "sandbox.ready"):
        assert len(await run.outside.stored("IN", f"in.*.{noun}.{run.org}.{run.id}")) == 1
    listed = await run.outside.api("ls", org=run.org)
    others = [job for job in listed["jobs"] if job["run"] != run.id]
    assert listed["jobs"] == others and listed["slots"]["used"] == sum(bool(job["use"]) for job in others)
    jobs = run.outside.place.home.dir / "sandbox" / "jobs"
    wait_until(lambda: not list(jobs.glob(f"{run.id}*")), PATIENCE)
    wait_until(lambda: processes_of(Path(run.id)) == {}, PATIENCE)


async def whole_log(run: Run) -> None:
    assert await run.log(1, 1) == [f"line {number}" for number in range(1, 301)] + [NO_ANSWER]
    assert await run.log(1, 2) == [f"line {number}" for number in range(1, 301)]
    assert await run.log(2, 1) == [f"line {number}" for number in range(1, 41)]
    messages = await run.outside.stored("LOGS", f"logs.{run.org}.{run.id}.*")
    kinds = [msgspec.json.decode(message.data)["kind"] for message in messages]
    assert kinds.count("end") == 1 and kinds[-1] == "end"


NO_ANSWER = "grep: answer: No such file or directory"


@pytest.mark.parametrize("victim", ["scheduler", "sandbox", "relay", "janitor", "nats-server"])
async def test_a_death_in_the_middle_of_the_story(anybody: Outside, victim: str) -> None:
    run = await anybody.request(*STORY, org=f"dies-{victim}", ssh={"pause": "on_failure"})
    await run.paused()
    with run.shell() as screen:
        await on_the_prompt(screen)
        await asyncio.to_thread(kill, anybody.place, victim)
        if victim in {"relay", "sandbox"}:
            await screen.ended()
        else:
            screen.type("echo still he''re\n")
            await screen.until("still here")
    await gets_in(run, "echo 42 >answer")
    retried = await gets_in(run, "pitstop-step retry")
    assert (retried.status, retried.out.splitlines()[-1]) == (0, "line 300")
    assert (await status(run))["job"]["status"] == "paused"
    with run.shell() as screen:
        await on_the_prompt(screen)
        screen.type("exit\n")
        assert await screen.ended() == 0
    await has_lines(run, 2, 1, 5)
    await asyncio.to_thread(kill, anybody.place, victim)
    await ended_once(run)
    await whole_log(run)
    steps = (await status(run))["report"]["steps"]
    assert [(step["result"], step["attempts"], step["choice"], step["by"]) for step in steps] == [
        ("success", 2, "retry", "ada"), ("success", 1, "", "")
    ]  # fmt: skip


async def test_the_deadline_of_a_session_outlives_everybody(anybody: Outside) -> None:
    """A session is left alone; all that could end it is killed; it ends all the same, and the queue goes on."""
    run = await anybody.request("true", org="forgotten", ssh={"pause": "at_end", "connect_window": 1.5})
    await run.paused()
    waiting = await anybody.request("echo mine", org="forgotten")
    for victim in ("janitor", "scheduler", "nats-server"):
        await asyncio.to_thread(kill, anybody.place, victim)
    await ended_once_of_two(run)
    await ended_once(waiting)
    assert await waiting.log(1) == ["mine"]


async def ended_once_of_two(run: Run) -> None:
    entry = await becomes(run, "finished")
    assert (entry["job"]["result"], entry["job"]["reason"]) == ("success", "connect_window")


async def test_a_host_that_is_stopped_leaves_its_jobs_to_the_next(anybody: Outside, tmp_path: Path) -> None:
    """`pitstop serve sandbox`, beside the one of `pitstop up`: SIGTERM, and another that goes on with the job."""
    place = anybody.place
    tls = place.home.dir / "tls"
    env = {
        "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": place.url("sandbox"), "PITSTOP_DIR": str(tmp_path / "host"),
        "PITSTOP_POOL": "own", "PITSTOP_HOST_ID": "second", "PITSTOP_TLS_CA": str(tls / "ca.pem"),
        "PITSTOP_TLS_CERT": str(tls / "host.pem"), "PITSTOP_TLS_KEY": str(tls / "host.key"),
        "PITSTOP_SSH_PUBLIC": f"127.0.0.1:{place.facts['ssh']['port']}",
        "PITSTOP_SSH_KNOWN_HOSTS": str(place.home.dir / "known_hosts"), "PITSTOP_HTTP": "127.0.0.1:0",
        "PITSTOP_READY_FILE": str(tmp_path / "ready"),
    }  # fmt: skip
    with serving(env, tmp_path):
        step = COUNT.format(lines=60, pause=0.04)
        run = await anybody.request(step, "echo after", org="moved", pool="own", ssh={"pause": "at_end"})
        await has_lines(run, 1, 1, 3)
    assert processes_of(tmp_path / "host"), "the job goes on without its host"
    with serving(env, tmp_path):
        await run.paused()
        assert (await run.ssh("id -un")).out == "runner\n"
        await run.exit()
        assert await run.finished() == "success"
        assert await run.log(1) == [f"line {number}" for number in range(1, 61)]
        assert len(run.all("sandbox.ready")) == 1 and len(run.all("job.claimed")) == 2
        wait_until(lambda: list((tmp_path / "host" / "jobs").iterdir()) == [], PATIENCE)
    wait_until(lambda: processes_of(tmp_path) == {}, PATIENCE)


@contextlib.contextmanager
def serving(env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pitstop serve sandbox`, ready; ended by SIGTERM."""
    ready = Path(env["PITSTOP_READY_FILE"])
    ready.unlink(missing_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "pitstop"), "serve", "sandbox"], env=env, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        wait_until(ready.exists, PATIENCE)
        yield process
        process.terminate()
        assert process.wait(35) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def test_kill_9_of_up_itself(tmp_path: Path) -> None:
    """One job runs, one is paused, one waits: after a restart each goes on where it was."""
    place = Place(Home(tmp_path))
    with up(place.home, "--org-slots", "1") as system:
        place.started(system)
        async with outside(place) as anybody:
            runs = await anybody.request(COUNT.format(lines=80, pause=0.03), org="runs")
            paused = await anybody.request("mkdir kept", "ls", org="waits", ssh={"pause": "after_step", "step": 1})
            await paused.paused()
            waits = await anybody.request("echo at last", org="waits")
            await has_lines(runs, 1, 1, 3)
        system.process.kill()
        system.process.wait()
        wait_until(lambda: not place.pid("scheduler") and not place.pid("nats-server"), PATIENCE)
        assert processes_of(Path(runs.id)), "the step goes on"
    with up(place.home, "--org-slots", "1") as system:
        place.started(system)
        async with outside(place) as anybody, asyncio.timeout(30):
            for run in (runs, paused, waits):
                run.outside = anybody
            assert (await status(paused))["job"]["status"] == "paused"
            assert (await gets_in(paused, "ls")).out == "kept\n"
            await gets_in(paused, "pitstop-step continue")
            for run in (paused, waits, runs):
                await ended_once(run)
            assert await runs.log(1) == [f"line {number}" for number in range(1, 81)]
            assert await paused.log(2) == ["kept"]
            assert await waits.log(1) == ["at last"]
        assert place.home.json("verify")["wrong"] == []
    assert left(place.home) == []


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
