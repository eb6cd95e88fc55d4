"""kill -9 of the host process wherever it may be: the next one goes on, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.jobs import run_of, step, until
from tests.killed_hosts import Hosts, once

from pitstop_common.spec import PausePlan, Source

MANY = 4000


@pytest.fixture(params=["namespaces", "docker"])
async def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Hosts]:
    engine = request.getfixturevalue("docker_engine") if request.param == "docker" else None
    hosts = Hosts(tmp_path, engine)
    yield hosts
    await hosts.remove()
    assert engine is None or engine.containers() == []


async def test_in_the_middle_of_a_step_again_and_again(hosts: Hosts) -> None:
    script = (
        f"i=0; while [ $i -lt {MANY} ]; do echo line $i; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.02; done; exit 7"
    )
    run = run_of(f"echo started >>$HOME/count; {script}", step("cat ~/count", condition="always"))
    await hosts.start(run)
    for part in (1, MANY // 3, MANY // 2):
        await hosts.when(lambda part=part: len(hosts.store.log(1)) >= part)  # type: ignore[misc]
        await hosts.kill()
        await hosts.start()
    await hosts.end()
    assert hosts.store.log(1) == [f"line {number}" for number in range(MANY)]
    assert hosts.store.log(2) == ["started"]
    report = hosts.store.report()
    assert [(entry.result, entry.exit_code, entry.attempts) for entry in report.steps] == [
        ("failure", 7, 1),
        ("success", 0, 1),
    ]
    once(hosts.store)
    assert hosts.store.last("job.finished")["incarnation"] == f"i{hosts.count}"


async def test_while_nobody_drives_the_step_ends_and_the_next_begins_later(hosts: Hosts) -> None:
    await hosts.start(run_of("echo a; until test -e go; do sleep 0.01; done; echo b; touch ended", "echo c"))
    await hosts.when(lambda: hosts.store.log(1) == ["a"])
    await hosts.kill()
    (hosts.folder / "work/go").touch()
    await until((hosts.folder / "work/ended").exists)
    await hosts.start()
    await hosts.end()
    assert (hosts.store.log(1), hosts.store.log(2)) == (["a", "b"], ["c"])
    once(hosts.store)


async def test_in_a_pause_with_somebody_inside(hosts: Hosts) -> None:
    await hosts.start(run_of("echo x >f; exit 1", step("cat f", condition="always"), pause=PausePlan(on_failure=True)))
    await hosts.when(lambda: "job.paused" in hosts.store.types())
    hosts.say("enter s1")
    await hosts.when(lambda: "ssh.connected" in hosts.store.types())
    await hosts.kill()
    await hosts.start()
    await hosts.when(lambda: hosts.store.types().count("job.paused") == 2)
    closed = hosts.store.last("ssh.closed")
    assert (closed["session"], closed["reason"], closed["left"]) == ("s1", "disconnect", 0)
    hosts.say("resume")
    await hosts.end()
    assert hosts.store.log(2) == ["x"]
    assert hosts.store.last("job.resumed")["choice"] == "expired"
    once(hosts.store)


async def test_a_retry_goes_on_and_its_asker_gets_the_answer(hosts: Hosts) -> None:
    script = "echo try; test -e ~/asked || { touch ~/asked; exit 1; }; "
    script += "until test -e go; do sleep 0.01; done; echo fixed"
    await hosts.start(run_of(script, "true", pause=PausePlan(on_failure=True)))
    await hosts.when(lambda: "job.paused" in hosts.store.types())
    box = hosts.folder / "job"
    await until((box / "open").exists)
    (box / "requests/.r1").write_text("verb=retry\nsession=\n")
    (box / "requests/.r1").rename(box / "requests/r1")
    await hosts.when(lambda: hosts.store.log(1, 2) == ["try"])
    await hosts.kill()
    await hosts.start()
    (hosts.folder / "work/go").touch()
    await until((box / "replies/r1").exists)
    assert (box / "replies/r1").read_text().startswith("0\n")
    hosts.say("resume")
    await hosts.end()
    assert hosts.store.log(1, 2) == ["try", "fixed"]
    assert hosts.store.report().steps[0].attempts == 2
    once(hosts.store)


async def test_a_killed_sandbox_is_said_to_be_lost(hosts: Hosts) -> None:
    await hosts.start(run_of("echo a; sleep 300"))
    await hosts.when(lambda: hosts.store.log(1) == ["a"])
    await hosts.remove()
    await hosts.start()
    await hosts.end()
    end = hosts.store.last("job.finished")
    assert (end["result"], end["reason"]) == ("error", "host_restarted")
    once(hosts.store)


async def test_at_the_start_and_in_a_checkout(hosts: Hosts, tmp_path: Path) -> None:
    git = tmp_path / "origin"
    for command in (
        ["init", "-q", "-b", "main", str(git)],
        ["-C", str(git), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        process = await asyncio.create_subprocess_exec("git", *command)
        assert await process.wait() == 0
    run = run_of(step(kind="checkout"), "git log --format=%s", source=Source(git=str(git)))
    await hosts.start(run)
    await until((hosts.folder / "journal").exists)
    await hosts.kill()
    await hosts.start()
    await hosts.when(lambda: "step.started" in hosts.store.types())
    await hosts.kill()
    await hosts.start()
    await hosts.end()
    assert hosts.store.log(2) == ["first"]
    assert hosts.store.last("job.finished")["result"] == "success"
    once(hosts.store)
