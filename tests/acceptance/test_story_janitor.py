"""Sessions that nobody uses end by themselves, and the next run in the queue has their slot within a second."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, Run, outside, running, validator
from tests.cli_system import Terminal

from pitstop_common import subjects

LATE = 1.0
"""Seconds from a deadline to the start of the run that waited."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("janitor"), "--slots", "12", "--org-slots", "1") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def passes_on(anybody: Outside, holder: Run, reason: str) -> None:
    """The holder's session expires for this reason, and its only slot goes to a run that waits, by the server's
    clock."""
    deadline = await due(holder, reason)
    waiting = await anybody.request("echo mine", org=holder.org)
    while not holder.all("session.expired"):
        deadline = await due(holder, reason) or deadline
        await asyncio.sleep(0.02)
    assert await waiting.finished() == "success"
    (expired,) = holder.all("session.expired")
    assert expired["reason"] == reason
    (started,) = await anybody.stored("EVENTS", subjects.about("run.started", holder.org, waiting.id))
    assert deadline and -0.01 <= started.stored - deadline < LATE, (deadline, started.stored)


async def due(holder: Run, reason: str) -> float:
    """When it ends by itself for this reason; 0: as things stand it does not, or has ended."""
    job = (await holder.entry(lambda found: found["job"]["deadline_reason"] in {reason, ""}))["job"]
    return float(job["deadline"]) if job["status"] == "paused" else 0.0


async def test_who_waits_is_told_where_and_why(anybody: Outside) -> None:
    holder = await anybody.request("true", org="full", ssh={"pause": "at_end"})
    await holder.paused()
    first, second = await anybody.request("true", org="full"), await anybody.request("true", org="full")
    for place, run in ((1, first), (2, second)):
        entry = await run.entry()
        assert (entry["job"]["status"], entry["position"]) == ("queued", place)
        assert entry["reason"] == "the only slot of org full is in use"
        shown = anybody.place.home.run("status", run.id, "--org", "full").stdout
        assert f"queued, position {place}: the only slot of org full is in use" in shown and "ssh -p" not in shown
    await top_shows(anybody, holder, first, second)
    await first.cancel()
    assert await first.finished() == "cancellation"
    assert (await second.entry())["position"] == 1
    await holder.exit()
    assert await second.finished() == "success"


async def top_shows(anybody: Outside, holder: Run, first: Run, second: Run) -> None:
    """Once as JSON, as the request answers; once as a table; and live, until Ctrl-C."""
    home = anybody.place.home
    told = home.json("top", "--org", "full")
    assert [(job["job"], job["use"]) for job in told["jobs"]] == [(holder.job, "debug")]
    assert [(one["position"], one["run"]) for one in told["queue"]] == [(1, first.id), (2, second.id)]
    assert {one["reason"] for one in told["queue"]} == {"the only slot of org full is in use"}
    assert (told["waiting"], told["slots"]) == (2, {"limit": 1, "used": 1, "debug": 1})
    validator("api.ls.reply").validate(await anybody.api("ls", {"slots": True}, org="full"))
    page = home.run("top", "--org", "full").stdout.splitlines()
    assert page[0] == "1 of 1 slots of full in use, 1 of them for sessions; 2 jobs wait"
    assert page[3].split()[:5] == [holder.job, "web", "job", "ada", "paused"]
    home.repo.mkdir(exist_ok=True)
    live = Terminal(home, "top", "--org", "full")
    await asyncio.to_thread(live.wait_for, "2 jobs wait")
    third = await anybody.request("true", org="full")
    await asyncio.to_thread(live.wait_for, "3 jobs wait")
    live.type("\x03")
    assert await asyncio.to_thread(live.end) == 0
    assert live.seen.count("\x1b[?1049h") == live.seen.count("\x1b[?1049l") == 1
    await third.cancel()
    await third.finished()


async def is_over(holder: Run, result: str, reason: str) -> None:
    """It ended with that result, for that reason, and its host says that nothing is left."""
    assert await holder.finished() == result
    assert (await holder.hear("run.finished"))["reason"] == reason
    assert (await holder.hear("job.finished"))["result"] == result
    listed = await holder.outside.api("ls", org=holder.org)
    assert (listed["slots"]["used"], listed["jobs"]) == (0, [])


async def test_a_pause_that_nobody_enters(anybody: Outside) -> None:
    run = await anybody.request("true", "true", org="window",
                                ssh={"pause": "after_step", "step": 1, "connect_window": 1.5})  # fmt: skip
    event = await run.paused()
    assert event["ssh"]["expires"] > event["time"]
    before = reclaimed(anybody.place, "connect_window")
    await passes_on(anybody, run, "connect_window")
    await is_over(run, "cancellation", "connect_window")
    assert [step["result"] for step in await run.steps()] == ["success", "skip"]
    assert reclaimed(anybody.place, "connect_window") == before + 1


def reclaimed(place: Place, reason: str) -> float:
    """As the janitor counts them."""
    with urllib.request.urlopen(place.facts["metrics"]["janitor"], timeout=10) as page:
        text = page.read().decode()
    found = re.search(rf'^pitstop_janitor_reclaimed_total{{kind="session",reason="{reason}"}} (\S+)$', text, re.M)
    return float(found[1]) if found else 0.0


async def test_a_session_that_somebody_left_open(anybody: Outside) -> None:
    run = await anybody.request("false", org="idle", ssh={"pause": "on_failure", "idle_timeout": 1.5})
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        await passes_on(anybody, run, "idle")
        await screen.until("nobody was active")
        assert await screen.ended() != 0
    assert (await run.hear("ssh.closed"))["reason"] == "expired"
    await is_over(run, "failure", "idle")


async def test_a_command_that_runs_on_is_nobody_at_work(anybody: Outside) -> None:
    run = await anybody.request("true", org="silent", ssh={"pause": "at_end", "idle_timeout": 1.5})
    await run.paused()
    entered = asyncio.create_task(run.ssh("while :; do echo tick; sleep 0.5; done"))
    await run.hear("ssh.connected")
    await passes_on(anybody, run, "idle")
    done = await entered
    assert done.status == 255 and "nobody was active" in done.err
    await is_over(run, "success", "idle")


async def test_a_command_that_computes_is_somebody_at_work_and_one_that_sleeps_is_not(anybody: Outside) -> None:
    at_work = await anybody.request("true", org="busy-cpu", ssh={"pause": "at_end", "idle_timeout": 4})
    asleep = await anybody.request("true", org="idle-cpu", ssh={"pause": "at_end", "idle_timeout": 4})
    await asyncio.gather(at_work.paused(), asleep.paused())
    computes = asyncio.create_task(at_work.ssh("timeout 7 yes >/dev/null; echo computed; exec sleep 1000"))
    sleeps = asyncio.create_task(asleep.ssh("sleep 1000"))
    assert (await asleep.hear("session.expired"))["reason"] == "idle"
    assert (await sleeps).status == 255
    assert not at_work.all("session.expired"), "it was cut off at work"
    assert (await at_work.hear("session.expired"))["reason"] == "idle"
    done = await computes
    assert (done.status, done.out) == (255, "computed\n")
    for run in (at_work, asleep):
        await is_over(run, "success", "idle")


async def test_who_works_on_is_stopped_at_the_maximum_and_coming_back_does_not_start_it_anew(anybody: Outside) -> None:
    run = await anybody.request("exit 1", "echo after", org="longest", ssh={"pause": "on_failure", "max_duration": 2})
    await run.paused()
    assert (await run.ssh("true")).status == 0
    with run.shell() as screen:
        await screen.until(PROMPT)
        typing = asyncio.create_task(types(screen, 0.2))
        try:
            await passes_on(anybody, run, "max_duration")
        finally:
            typing.cancel()
        await screen.until("maximum duration")
        await screen.ended()
    connected = run.all("ssh.connected")
    assert len(connected) == 2
    await is_over(run, "failure", "max_duration")


async def types(screen: Any, every: float) -> None:
    """A person at work."""
    while True:
        screen.type("x")
        await asyncio.sleep(every)


async def test_who_types_now_and_then_is_not_idle(anybody: Outside) -> None:
    run = await anybody.request("true", org="busy", ssh={"pause": "at_end", "idle_timeout": 2})
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        typing = asyncio.create_task(types(screen, 0.5))
        connected = asyncio.get_running_loop().time()
        active = (await run.entry())["job"]["active"]
        while asyncio.get_running_loop().time() < connected + 4.2:  # more than twice the limit
            job = (await run.entry())["job"]
            assert job["status"] == "paused"
            await asyncio.sleep(0.1)
        assert job["active"] > active + 2
        assert not run.all("session.expired")
        typing.cancel()
        screen.type("\x15exit\n")
        await screen.ended()
    await is_over(run, "success", "")


@pytest.mark.parametrize(
    ("step", "pause", "result"),
    [
        ("true", "at_end", "success"), ("false", "at_end", "failure"), ("false", "on_failure", "failure"),
        ("true", "after_step", "cancellation"), ("true", "direct", "success"),
    ],
)  # fmt: skip
async def test_what_a_job_ends_as(anybody: Outside, step: str, pause: str, result: str) -> None:
    ask: dict[str, Any] = {"direct": True} if pause == "direct" else {"pause": pause}
    if pause == "after_step":
        ask["step"] = 1
    run = await anybody.request(step, org=f"ends-{pause.replace('_', '-')}", ssh=ask | {"connect_window": 0.3})
    assert (await run.paused())["reason"] == pause
    await is_over(run, result, "connect_window")


async def test_a_failure_that_was_repaired_is_no_failure(anybody: Outside) -> None:
    run = await anybody.request("test -e there", org="repaired", ssh={"pause": "on_failure", "connect_window": 1.5})
    await run.paused()
    assert (await run.ssh("touch there; pitstop-step retry")).status == 0
    await is_over(run, "cancellation", "connect_window")
    assert (await run.steps())[0]["result"] == "success"


@pytest.mark.parametrize("inside", [False, True], ids=["nobody inside", "somebody inside"])
async def test_or_the_steps_go_on(anybody: Outside, inside: bool) -> None:
    run = await anybody.request(
        "true", "echo on", org=f"resume-{inside}".lower(),
        ssh={"pause": "after_step", "step": 1, "on_expiry": "resume", "connect_window": 30 if inside else 0.6,
             "idle_timeout": 0.6},
    )  # fmt: skip
    await run.paused()
    if inside:
        done = await run.ssh("sleep 60")
        assert done.status == 255 and "the steps go on" in done.err
    assert await run.finished() == "success"
    (resumed,) = run.all("job.resumed")
    assert (resumed["choice"], resumed["by"]) == ("expired", "")
    assert run.all("session.expired")[0]["reason"] == ("idle" if inside else "connect_window")
    assert await run.log(2) == ["on"]


async def test_the_connect_window_does_not_end_steps_that_run(anybody: Outside) -> None:
    run = await anybody.request("sleep 1; echo through", org="steps", ssh={"direct": True, "connect_window": 0.3})
    await run.hear("step.finished")
    assert not run.all("session.expired")
    assert await run.log(1) == ["through"]
    await is_over(run, "success", "connect_window")


async def test_whoever_comes_in_time_stops_the_clock(anybody: Outside) -> None:
    run = await anybody.request("true", org="in-time", ssh={"pause": "at_end", "connect_window": 1.5})
    await run.paused()
    entered = asyncio.create_task(run.ssh("sleep 60"))
    await run.hear("ssh.connected")
    entry = await run.entry(lambda found: found["job"]["sessions"] == 1)
    assert entry["job"]["deadline_reason"] == "idle"
    assert entry["job"]["deadline"] > entry["job"]["paused_at"] + 600
    await run.cancel()
    await entered
    await is_over(run, "cancellation", "cancelled")


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
