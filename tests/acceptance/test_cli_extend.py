"""From the outside: people are warned before their session ends, and keep it; limits of an org change while it runs."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, Run, outside, running

from pitstop_common import subjects

LATE = 1.0
"""Seconds from a deadline to what follows from it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("extend"), "--slots", "12", "--org-slots", "2") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def held(anybody: Outside, org: str, **session: Any) -> Run:
    """A job that waits for its person."""
    run = await anybody.request("true", org=org, ssh={"pause": "at_end", **session})
    await run.paused()
    return run


async def pitstop(run: Run, *args: str) -> Any:
    """What a command of that org prints as JSON, while everything else goes on."""
    home = run.outside.place.home
    return await asyncio.to_thread(home.json, *args, "--org", run.org)


async def when(anybody: Outside, stream: str, type_: str, run: Run) -> list[float]:
    """When the server stored the messages of that type about a run."""
    subject = subjects.about(type_, run.org, run.id)
    found = await anybody.stored(stream, subject if stream == "EVENTS" else f"in.*.{subject}")
    return [one.stored for one in found]


async def deadline(run: Run) -> float:
    found: float = (await run.entry())["job"]["deadline"]
    return found


async def test_who_types_nothing_is_warned_half_of_a_short_limit_before_the_end(anybody: Outside) -> None:
    run = await held(anybody, "silent", idle_timeout=4)
    with run.shell() as screen:
        await screen.until(PROMPT)
        await screen.until("[pitstop] nobody types here: this session ends in ")
        await screen.until(" s. Press any key to keep it")
        expiring = await run.hear("session.expiring")
        assert (expiring["reason"], expiring["job"]) == ("idle", run.job)
        assert expiring["left"] == pytest.approx(2.0, abs=LATE)
        await screen.until("nobody was active for the idle limit")
        assert await screen.ended() != 0
    assert await run.finished() == "success"
    (warned,), (expired,) = (
        await when(anybody, "EVENTS", "session.expiring", run),
        await when(anybody, "IN", "session.expired", run),
    )
    assert expired - warned == pytest.approx(2.0, abs=LATE)


async def test_any_key_keeps_an_idle_session(anybody: Outside) -> None:
    run = await held(anybody, "key", idle_timeout=3)
    with run.shell() as screen:
        await screen.until(PROMPT)
        await screen.until("Press any key to keep it")
        before = await deadline(run)
        screen.type("x")
        await run.entry(lambda found: found["job"]["deadline"] > before + 0.5)
        await screen.until("Press any key to keep it")
        assert time.time() > before - LATE and not run.all("session.expired")
        await run.hear("session.expiring", 2)
        screen.type("\x15exit\n")
        await screen.ended()
    assert await run.finished() == "success"
    assert not run.all("session.expired")


async def test_an_extension_keeps_it_without_a_key(anybody: Outside) -> None:
    run = await held(anybody, "extend", idle_timeout=8, max_duration=9)
    with run.shell() as screen:
        await screen.until(PROMPT)
        await screen.until("Press any key to keep it")
        before = await deadline(run)
        answer = await pitstop(run, "extend", run.id, "10m")
        until = datetime.fromisoformat(answer["until"].replace("Z", "+00:00")).timestamp()
        assert (answer["job"], answer["capped"]) == (run.job, False)
        assert await deadline(run) == pytest.approx(until, abs=0.01)
        extended = await run.hear("session.extended")
        assert (extended["by"], extended["until"], extended["job"]) == ("ada", answer["until"], run.job)
        while time.time() < before + 1.5:  # past its idle limit and its maximum
            assert (await run.entry())["job"]["status"] == "paused"
            await asyncio.sleep(0.1)
        assert not run.all("session.expired")
        screen.type("exit\n")
        await screen.ended()
    assert await run.finished() == "success"


async def test_the_words_of_an_extension_and_of_what_cannot_be_extended(anybody: Outside, tmp_path: Path) -> None:
    home = anybody.place.home
    run = await held(anybody, "words")
    limits = tmp_path / "org.toml"
    limits.write_text('org = "words"\nlongest_session = "20m"\n')
    assert home.run("apply", "-f", str(limits)).returncode == 0
    done = home.run("extend", run.job, "30m", "--org", "words")
    assert done.returncode == 0 and f"the session of {run.job} is kept until " in done.stderr, done.stderr
    assert "the org allows no more: its longest session is in `pitstop org show`" in done.stderr
    assert home.run("extend", "aaaaaaaaaaaa", "30m", "--org", "words").returncode == 5
    assert home.run("extend", run.job, "soon", "--org", "words").returncode == 2
    await run.cancel()
    await run.finished()
    late = home.run("extend", run.job, "30m", "--org", "words")
    assert late.returncode == 2 and "has ended (cancellation): there is no session to keep" in late.stderr


async def test_runs_that_wait_shorten_the_idle_limit_and_get_the_slot(anybody: Outside, tmp_path: Path) -> None:
    limits = tmp_path / "org.toml"
    limits.write_text('org = "pressure"\nslots = 1\npressure = "4s"\n')
    applied = anybody.place.home.run("apply", "-f", str(limits))
    assert applied.returncode == 0, applied.stderr
    holder = await held(anybody, "pressure", idle_timeout=900)
    with holder.shell() as screen:
        await screen.until(PROMPT)
        assert await deadline(holder) > time.time() + 800
        entered = (await holder.entry())["job"]["active"]
        screen.type("x")  # and the next key would be told with a delay, if nobody had been warned before it
        typed = (await holder.entry(lambda found: found["job"]["active"] > entered))["job"]["active"]
        waiting = await anybody.request("echo mine", org="pressure")
        await screen.until("other runs wait for this slot, and nobody types here: this session ends in ")
        assert (await holder.hear("session.expiring"))["reason"] == "pressure"
        screen.type("x")  # still here
        await holder.entry(lambda found: found["job"]["active"] > typed + 1)
        warned = len(holder.all("session.expiring"))
        end = await deadline(holder)
        await holder.hear("session.expiring", warned + 1)
        assert not holder.all("session.expired") and not waiting.all("run.started")
        await screen.until("nobody was active while other runs waited")
        assert await screen.ended() != 0
    assert (await holder.hear("session.expired"))["reason"] == "pressure"
    assert await waiting.finished() == "success"
    (started,) = await when(anybody, "EVENTS", "run.started", waiting)
    assert -0.01 <= started - end < LATE


async def test_pressure_ends_with_the_waiting(anybody: Outside, tmp_path: Path) -> None:
    limits = tmp_path / "org.toml"
    limits.write_text('org = "relief"\nslots = 1\npressure = "5m"\n')
    assert anybody.place.home.run("apply", "-f", str(limits)).returncode == 0
    holder = await held(anybody, "relief", idle_timeout=900)
    with holder.shell() as screen:
        await screen.until(PROMPT)
        waiting = await anybody.request("true", org="relief")
        pressed = await holder.entry(lambda found: found["job"]["deadline_reason"] == "pressure")
        assert pressed["job"]["deadline"] < time.time() + 310
        await waiting.cancel()
        relieved = await holder.entry(lambda found: found["job"]["deadline_reason"] == "idle")
        assert relieved["job"]["deadline"] > time.time() + 800
        screen.type("exit\n")
        await screen.ended()


async def test_a_command_without_a_terminal_is_warned_on_stderr(anybody: Outside) -> None:
    run = await held(anybody, "stderr", idle_timeout=2)
    done = await run.ssh("echo out; sleep 60")
    assert (done.status, done.out) == (255, "out\n")
    assert re.search(
        r"^pitstop: nobody types here: this session ends in \d s\. Press any key to keep it$", done.err, re.M
    )


async def test_only_sessions_that_are_idle_for_longer_are_cancelled(anybody: Outside) -> None:
    old, young = await held(anybody, "sweep"), await held(anybody, "sweep", idle_timeout=12)
    home = anybody.place.home
    with young.shell() as screen:
        await screen.until(PROMPT)
        typing = asyncio.create_task(types(screen))
        await young.entry(lambda found: found["job"]["sessions"] == 1)
        listed = {job["job"]: job for job in (await anybody.api("ls", {"ssh": True}, org="sweep"))["jobs"]}
        assert set(listed) == {old.job, young.job}
        none = await asyncio.to_thread(home.run, "cancel", "--ssh", "--idle-over", "1h", "--org", "sweep")
        assert none.stderr == "no job is held for a session that has been idle for 1 h\n"
        while (await anybody.api("ls", {}, org="sweep"))["now"] < listed[old.job]["paused_at"] + 8:
            await asyncio.sleep(0.1)
        dry = await asyncio.to_thread(home.run, "cancel", "--ssh", "--idle-over", "8s", "--dry-run", "--org", "sweep")
        assert dry.stdout.startswith(f"{old.job}  job of ada  idle ") and dry.stdout.count("\n") == 1, dry
        assert "none was cancelled" in dry.stderr
        assert (await old.status())["run"]["status"] == "running"
        swept = await pitstop(old, "cancel", "--ssh", "--idle-over", "8s")
        assert [(one["job"], one["actor"]) for one in swept["cancelled"]] == [(old.job, "ada")]
        assert swept["cancelled"][0]["idle"] > 8
        assert await old.finished() == "cancellation"
        assert (await young.status())["run"]["status"] == "running"
        typing.cancel()
        await young.cancel()
        await screen.ended()
    await young.finished()


async def types(screen: Any) -> None:
    """Somebody at work: said every third second, a quarter of the idle limit."""
    while True:
        screen.type("x")
        await asyncio.sleep(0.5)


async def test_limits_are_applied_from_a_file_and_shown(anybody: Outside, tmp_path: Path) -> None:
    home = anybody.place.home
    limits = tmp_path / "org.toml"
    limits.write_text('org = "filed"\nslots = 1\nweight = 2\npressure = "1m"\n[projects.web]\nslots = 1\n')
    dry = home.run("apply", "-f", str(limits), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines() == [
        "org filed", "  slots               the default -> 1", "  weight              1 -> 2",
        "  pressure            5 min -> 1 min", "  projects.web.slots  the default -> 1",
    ]  # fmt: skip
    assert "nothing was changed" in dry.stderr
    assert home.json("org", "show", "filed")["configured"] is False
    runs = [await held(anybody, "filed") for _ in range(2)]
    applied = home.run("apply", "-f", str(limits))
    assert applied.stdout == dry.stdout
    assert "2 slots are in use; nothing is ended, and none is given until fewer than 1 are" in applied.stderr
    shown = home.json("org", "show", "--org", "filed")
    assert (shown["configured"], shown["slots"], shown["used"], shown["debug"]) == (True, 1, 2, 2)
    assert (shown["weight"], shown["pressure"], shown["projects"]) == (2, 60.0, {"web": 1})
    page = home.run("org", "show", "filed").stdout
    assert "  slots            2 of 1 in use, 2 of them for sessions\n" in page
    again = json.loads(home.run("apply", "-f", "-", "-o", "json", stdin=limits.read_text()).stdout)
    assert (again["changes"], again["applied"], again["now"]["slots"]) == ([], False, 1)
    for run in runs:
        assert (await run.status())["run"]["status"] == "running"
        await run.cancel()


async def test_limits_of_pools_are_applied_from_a_file_of_their_own_and_shown(anybody: Outside, tmp_path: Path) -> None:
    home = anybody.place.home
    pools = tmp_path / "pools.toml"
    pools.write_text("[pools.default]\nslots = 1\n")
    runs = [await held(anybody, "shared") for _ in range(2)]
    dry = home.run("apply", "-f", str(pools), "--dry-run")
    assert dry.stdout.splitlines() == ["pools", "  pools.default.slots  the default -> 1"], dry.stderr
    applied = home.run("apply", "-f", str(pools))
    assert (applied.returncode, applied.stdout) == (0, dry.stdout)
    assert "pool default: 2 slots are in use; nothing is ended, and none is given until" in applied.stderr
    assert "the pools are as the file says" in home.run("apply", "-f", str(pools)).stderr
    page = home.run("org", "show", "another").stdout
    assert "  pool default: 2 of 1 in use by all orgs; " in page
    pools.write_text('org = "shared"\nweight = 2\n[pools.default]\n')
    told = json.loads(home.run("apply", "-f", str(pools), "-o", "json").stdout)
    assert [(one["key"], one["new"]) for one in told["changes"]] == [("weight", 2), ("pools.default.slots", None)]
    assert (told["now"]["weight"], told["now"]["pools"][0]["own_slots"]) == (2, None)
    for run in runs:
        assert (await run.status())["run"]["status"] == "running"
        await run.cancel()


async def test_a_wrong_file_is_refused_with_its_lines(anybody: Outside, tmp_path: Path) -> None:
    home = anybody.place.home
    limits = tmp_path / "org.toml"
    limits.write_text('org = "wrong"\n\nslot = 1\nweight = 0\n')
    done = home.run("apply", "-f", str(limits))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{limits}:3: slot: unknown key; did you mean `slots`?\n" in done.stderr
    assert f"{limits}:4: weight: must be at least 1 and at most 1000\n" in done.stderr
    told = home.run("apply", "-f", str(limits), "-o", "json")
    assert [fault["line"] for fault in json.loads(told.stdout)["errors"]] == [3, 4] and told.returncode == 2
    limits.write_text('org = "wrong"\nslots = \n')
    assert f"{limits}:2: not TOML: " in home.run("apply", "-f", str(limits)).stderr
    assert home.run("apply", "-f", str(tmp_path / "none.toml")).returncode == 2
    limits.write_text('org = "wrong"\n')
    assert home.run("apply", "-f", str(limits), "--org", "other").returncode == 2
    assert home.json("org", "show", "wrong")["configured"] is False


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
