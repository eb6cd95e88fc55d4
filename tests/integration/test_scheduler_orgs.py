"""Limits that change while jobs run, and sessions that people keep: a real scheduler; the test plays the host."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
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
from pitstop_common.streams import IN, TIMERS
from pitstop_scheduler.verify import check


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with scheduling(nats_server.url(), tmp_path, org_slots="3") as one:
        await until(lambda: owns(bus))
        yield one


async def owns(bus: Bus) -> bool:
    """Its settings are in the log."""
    return bool((await ask(bus, "org-show"))["slots"] == 3)


@pytest.fixture
async def host(bus: Bus) -> AsyncIterator[PlayedHost]:
    async with playing(bus, 8) as played:
        yield played


async def run(bus: Bus, id: str, **more: Any) -> Any:
    return await ask(bus, "run", id=id, org="acme", project="web", steps=[{"run": "true"}], **more)


async def running(bus: Bus, host: PlayedHost, id: str, **more: Any) -> m.Start:
    await run(bus, id, **more)
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)
    return start


async def paused(bus: Bus, host: PlayedHost, id: str, **ssh: Any) -> m.Start:
    await ask(bus, "keys-add", key=KEY)
    start = await running(bus, host, id, ssh={"pause": "at_end", **ssh})
    await host.report(m.JobPaused, start, reason="at_end")
    await until(lambda: status_is(bus, start, "paused"))
    return start


async def status_is(bus: Bus, start: m.Start, *wanted: str) -> bool:
    return (await ask(bus, "status", run=start.run))["jobs"][0]["job"]["status"] in wanted


async def statuses(bus: Bus) -> list[str]:
    return sorted(job["status"] for job in (await ask(bus, "ls"))["jobs"])


async def enter(bus: Bus, host: PlayedHost, start: m.Start) -> None:
    await host.report(m.SshConnected, start, session=f"s.{start.job}", user="ada", fingerprint="f")
    await until(lambda: somebody_inside(bus, start))


async def somebody_inside(bus: Bus, start: m.Start) -> bool:
    return bool((await ask(bus, "status", run=start.run))["jobs"][0]["job"]["sessions"])


async def deadline(bus: Bus, start: m.Start) -> float:
    found: float = (await ask(bus, "status", run=start.run))["jobs"][0]["job"]["deadline"]
    return found


async def armed(bus: Bus, start: m.Start, kind: str = "session") -> tuple[float, m.Fired] | None:
    """When the timer that lies in TIMERS fires."""
    subject = subjects.timer(kind, start.job, start.attempt)
    for item in await read_all(bus, TIMERS, subject):
        return instant(item.headers["Nats-Schedule"].removeprefix("@at ")), msgspec.json.decode(item.data, type=m.Fired)
    return None


async def armed_at(bus: Bus, start: m.Start, at: float, kind: str = "session") -> bool:
    timer = await armed(bus, start, kind)
    return timer is not None and timer[0] == pytest.approx(at, abs=0.01)


def instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


async def test_lower_limits_end_nothing_but_stop_granting_and_higher_ones_grant_at_once(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    before = await ask(bus, "org-show")
    assert (before["configured"], before["slots"], before["own_slots"]) == (False, 3, None)
    starts = [await running(bus, host, f"r{n}") for n in range(3)]
    lowered = await ask(bus, "org-apply", slots=1, projects={"web": 2})
    assert (lowered["configured"], lowered["slots"], lowered["used"]) == (True, 1, 3)
    assert (lowered["projects"], lowered["used_by_project"]) == ({"web": 2}, {"web": 3})
    waiting = await run(bus, "waits")
    for start, left in zip(starts, (2, 1, 0), strict=True):
        if left:
            await host.report(m.JobFinished, start, result="success")
            await until(lambda: status_is(bus, start, "finished"))  # noqa: B023
            assert await statuses(bus) == ["queued", *["running"] * left]
    raised = await ask(bus, "org-apply", slots=2, projects={"web": 2})
    assert (raised["used"], raised["waiting"]) == (2, 0), "the answer comes after the grant"
    assert (await host.take()).run == waiting["run"]
    await run(bus, "third")
    assert (await ask(bus, "org-show"))["waiting"] == 1
    back = await ask(bus, "org-apply")
    assert (back["own_slots"], back["slots"], back["projects"], back["waiting"]) == (None, 3, {}, 0)
    checker = await check(bus)
    assert [wrong for wrong in checker.wrong if "read model" not in wrong] == []


async def test_a_limit_of_a_project_says_why_and_holds_no_other_project(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await ask(bus, "org-apply", slots=0, projects={"web": 1})
    await running(bus, host, "one")
    waits = await run(bus, "two")
    (entry,) = (await ask(bus, "status", run=waits["run"]))["jobs"]
    assert (entry["position"], entry["reason"]) == (1, "the only slot of project web is in use")
    other = await ask(bus, "run", id="other", org="acme", project="api", steps=[{"run": "true"}])
    assert (await host.take()).run == other["run"]


async def test_wrong_limits_are_refused_whole_and_each_fault_is_named(bus: Bus, scheduler: Scheduler) -> None:
    refused = await ask(bus, "org-apply", slots=-1, weight=0, projects={"web": "2"}, pressure=0)
    assert refused["code"] == "400"
    assert [fault["pointer"] for fault in refused["errors"]] == ["/slots", "/weight", "/projects/web", "/pressure"]
    many = await ask(bus, "org-apply", projects={f"p{n}": -1 for n in range(300)})
    assert many["code"] == "400" and "there may be more" in many["message"]
    assert (await ask(bus, "org-show"))["configured"] is False
    assert await read_all(bus, IN, "in.*.org.configured.>") == []


async def test_an_applied_limit_is_one_fact_that_names_who_set_it(bus: Bus, scheduler: Scheduler) -> None:
    heard = await bus.nc.subscribe("org.configured")
    await bus.nc.flush()
    await ask(bus, "org-apply", slots=2, weight=3, pressure=60, max_duration=300, longest_session=600)
    fact = m.decode_fact((await heard.next_msg(timeout=PATIENCE)).data)
    assert isinstance(fact, m.OrgConfigured)
    assert (fact.org, fact.by, fact.slots, fact.weight) == ("acme", "ada", 2, 3)
    assert len(await read_all(bus, IN, "in.*.org.configured.>")) == 1
    shown = await ask(bus, "org-show")
    assert (shown["pressure"], shown["max_duration"], shown["longest_session"]) == (60, 300, 600)


async def test_an_extension_moves_the_timer_and_is_told(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    told = await bus.nc.subscribe("session.extended")
    await bus.nc.flush()
    start = await paused(bus, host, "one", idle_timeout=300, max_duration=600)
    await enter(bus, host, start)
    before = await deadline(bus, start)
    await until(lambda: armed_at(bus, start, before))
    await until(lambda: armed_at(bus, start, before - 120, "warning"))
    answer = await ask(bus, "extend", run=start.run, seconds=1800)
    until_ = instant(answer["until"])
    assert (answer["job"], answer["capped"]) == (start.job, False)
    assert until_ == pytest.approx(time.time() + 1800, abs=5)
    await until(lambda: armed_at(bus, start, until_))
    await until(lambda: armed_at(bus, start, until_ - 120, "warning"))
    assert await deadline(bus, start) == pytest.approx(until_, abs=0.01)
    event = m.decode_event((await told.next_msg(timeout=PATIENCE)).data)
    assert isinstance(event, m.SessionExtended)
    assert (event.job, event.by, instant(event.until)) == (start.job, "ada", pytest.approx(until_, abs=0.01))
    shorter = await ask(bus, "extend", run=start.job, seconds=60)
    assert (instant(shorter["until"]), shorter["capped"]) == (pytest.approx(until_, abs=0.01), False)


async def test_an_extension_is_capped_by_the_org(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    await ask(bus, "org-apply", longest_session=1000)
    start = await paused(bus, host, "one", idle_timeout=300)
    await enter(bus, host, start)
    login = await deadline(bus, start) - 300
    answer = await ask(bus, "extend", run=start.job, seconds=3600)
    assert answer["capped"] is True
    assert instant(answer["until"]) == pytest.approx(login + 1000, abs=0.01)
    await until(lambda: armed_at(bus, start, login + 1000))


async def test_a_session_lasts_as_long_as_its_org_has_it_and_no_run_says_more(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    async def lasts(id: str, **session: float) -> tuple[float, float]:
        start = await paused(bus, host, id, idle_timeout=86400, **session)
        entered = time.time()
        await enter(bus, host, start)
        return start.max_duration, await deadline(bus, start) - entered

    assert await lasts("one") == (3600, pytest.approx(3600, abs=5))
    await ask(bus, "org-apply", slots=4, max_duration=7200, longest_session=10800)
    assert await lasts("two") == (7200, pytest.approx(7200, abs=5))
    assert await lasts("three", max_duration=600) == (600, pytest.approx(600, abs=5))
    assert await lasts("four", max_duration=86400) == (10800, pytest.approx(10800, abs=5))


async def test_an_extension_past_the_cap_changes_nothing(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    start = await paused(bus, host, "one", idle_timeout=300)
    await enter(bus, host, start)
    await ask(bus, "org-apply", longest_session=0.001)
    before = await deadline(bus, start)
    answer = await ask(bus, "extend", run=start.job, seconds=3600)
    assert (answer["capped"], instant(answer["until"])) == (True, pytest.approx(before, abs=0.01))
    assert await deadline(bus, start) == before
    assert await read_all(bus, "EVENTS", "session.extended.>") == []


async def test_who_enters_a_session_that_was_kept_is_warned_of_its_end(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    start = await paused(bus, host, "one", connect_window=100, idle_timeout=100)
    kept = instant((await ask(bus, "extend", run=start.job, seconds=1800))["until"])
    await until(lambda: armed_at(bus, start, kept))
    assert await armed(bus, start, "warning") is None
    await enter(bus, host, start)
    await until(lambda: armed_at(bus, start, kept - 50, "warning"))
    timer = await armed(bus, start)
    assert timer is not None and timer[1].reason == "idle"


async def test_what_has_no_session_cannot_be_extended(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    for body, code, told in (
        ({"run": "aaaaaaaaaaaa", "seconds": 60}, "404", "there is no run"),
        ({"run": "a.b", "seconds": 60}, "404", "there is no run"),
        ({"seconds": 60}, "400", "`run` is missing"),
    ):
        refused = await ask(bus, "extend", **body)
        assert (refused["code"], told in refused["message"]) == (code, True), refused
    plain = await running(bus, host, "plain")
    waits = await paused(bus, host, "waits")
    refused = await ask(bus, "extend", run=plain.run, seconds=60)
    assert (refused["code"], "offers no session" in refused["message"]) == ("400", True)
    assert (await ask(bus, "extend", run=waits.run, seconds=-1))["errors"][0]["pointer"] == "/seconds"
    assert (await ask(bus, "extend", run=waits.run, job="nobody", seconds=60))["code"] == "404"
    assert (await ask(bus, "extend", run=waits.run, job="job", seconds=60))["job"] == waits.job
    await host.report(m.JobResumed, waits, choice="continue")
    await until(lambda: status_is(bus, waits, "running"))
    refused = await ask(bus, "extend", run=waits.job, seconds=60)
    assert (refused["code"], "has no session now: it is running" in refused["message"]) == ("400", True)
    await host.report(m.JobFinished, waits, result="success")
    await until(lambda: status_is(bus, waits, "finished"))
    refused = await ask(bus, "extend", run=waits.job, seconds=60)
    assert (refused["code"], "has ended (success)" in refused["message"]) == ("400", True)


async def test_the_list_says_what_time_it_is_by_the_server(bus: Bus, scheduler: Scheduler, host: PlayedHost) -> None:
    await paused(bus, host, "one")
    first = (await ask(bus, "ls", ssh=True))["now"]
    assert first == pytest.approx(time.time(), abs=2)
    assert (await ask(bus, "ls", ssh=True))["now"] > first, "it goes on while nothing happens"
