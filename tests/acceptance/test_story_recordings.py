"""Recordings of terminals, from outside: what is in them after kills and reconnects, and what is not. Row E6."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, SECONDS, Outside, Place, Run, outside, running
from tests.acceptance.test_story_kills import kill

TOKEN = "tok-Zq7vLw9xPk2mRt5y"
ASCIINEMA = str(Path(sys.executable).parent / "asciinema")
COUNTING = "for i in $(seq 100); do echo tick $i; sleep 0.05; done"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("casts")) as made:
        done = made.home.run("secrets", "set", "deploy", "API_TOKEN", stdin=TOKEN)
        assert done.returncode == 0, done.stderr
        file = made.home.folder / "org.toml"
        file.write_text('org = "local"\n[roles]\nada = "admin"\nbob = "read"\n[projects.web]\nrecording = true\n')
        applied = made.home.run("apply", "-f", str(file))
        assert applied.returncode == 0 and "recording  false -> true" in applied.stdout, applied.stderr
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def started(anybody: Outside, project: str) -> Run:
    key = anybody.place.person().public
    body = {"org": "local", "project": project, "secrets": ["deploy"], "steps": [{"run": "true"}],
            "ssh": {"pause": "at_end", "keys": [key]}}  # fmt: skip
    begun = await anybody.api("run", body, org="local")
    run = Run(anybody, body, begun["run"], begun["jobs"])
    await run.paused()
    return run


async def recordings(run: Run, holds: int) -> list[dict[str, Any]]:
    """Once so many have ended."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = (await asyncio.to_thread(run.outside.place.home.json, "recordings", "ls", run.id))["recordings"]
            if sum(one["ended"] for one in found) >= holds:
                return list(found)


def played(file: Path) -> str:
    """What asciinema makes of it."""
    env = {"LANG": "C.UTF-8", "HOME": str(file.parent)}
    return subprocess.run([ASCIINEMA, "cat", str(file)], capture_output=True, check=True, env=env).stdout.decode()


async def test_a_shell_is_recorded_over_a_kill_of_the_host_and_a_reconnect(anybody: Outside, tmp_path: Path) -> None:
    home = anybody.place.home
    run = await started(anybody, "web")
    with run.shell(columns=90, rows=30) as first:
        await first.until("what this terminal shows is recorded")
        await first.until(PROMPT)
        first.type("echo value: $API_TOKEN\n")
        await first.until(TOKEN)
        first.type(f"{COUNTING}; echo o''ver\n")
        await first.until("tick 2\r\n")
        kill(anybody.place, "sandbox")
        await first.ended()
    with run.shell(columns=70, rows=20) as second:
        await second.until("what this terminal shows is recorded")
        await second.until("over\r\n")
        for char in "echo typed tok-Zq7v":  # a value that appears key by key, after a part of it
            second.type(char)
        second.type("Lw9xPk2mRt5y\n")
        await second.until(f"typed {TOKEN}\r\n")
        second.type("exit\n")
        await second.ended()
    await run.finished()
    (one,) = await recordings(run, 1)
    assert (one["user"], one["job"], one["title"], one["cut"]) == ("ada", run.job, "", False)
    assert one["seconds"] > 4
    file = tmp_path / "shell.cast"
    done = await asyncio.to_thread(home.run, "recordings", "get", run.id, "-O", str(file))
    assert done.returncode == 0 and "asciinema play" in done.stderr, done.stderr
    text = await asyncio.to_thread(played, file)
    ticks = [int(number) for number in re.findall(r"tick (\d+)\r", text)]
    assert ticks == list(range(1, 101)), "nothing of it is missing, and nothing comes twice"
    assert TOKEN not in text and "value: ***" in text and "typed ***" in text
    head, *events = [json.loads(line) for line in file.read_text().splitlines()]
    assert (head["version"], head["width"], head["height"]) == (2, 90, 30)
    assert "70x20" in [data for _, code, data in events if code == "r"]
    times = [at for at, _, _ in events]
    assert times == sorted(times) and {code for _, code, _ in events} == {"o", "r"}
    assert not [message for message in await anybody.stored("CASTS") if TOKEN.encode() in message.data]
    table = (await asyncio.to_thread(home.run, "audit", run.id)).stdout
    assert f"the terminal is recorded: {one['recording']}" in table


async def test_a_command_on_a_terminal_is_recorded_and_one_without_is_not(anybody: Outside) -> None:
    home = anybody.place.home
    run = await started(anybody, "web")
    assert (await run.ssh(f"echo plain {TOKEN}")).err == ""
    with anybody.place.screen(run.job, "echo seen; sleep 0.1", options=["-tt"]) as screen:
        await screen.until("seen")
        await screen.ended()
    (one,) = await recordings(run, 1)
    assert one["title"] == "echo seen; sleep 0.1"
    done = await asyncio.to_thread(home.run, "recordings", "get", run.job, one["recording"])
    assert '"seen\\r\\n"' in done.stdout, done.stdout
    reply = await anybody.api("recordings", {"run": run.id}, org="local", actor="bob")
    assert [each["recording"] for each in reply["recordings"]] == [one["recording"]], "as the audit: the role read"
    refused = await anybody.api("recording", {"run": run.job, "recording": one["recording"]}, org="local", actor="eve")
    assert refused["error"] == "denied"
    for wrong in ("*", "a.b", ">"):
        reply = await anybody.api("recording", {"run": run.job, "recording": wrong}, org="local")
        assert "errors" in reply and "chunks" not in reply
    none = await asyncio.to_thread(home.run, "recordings", "get", run.job, "nope")
    assert none.returncode == 5 and "pitstop recordings ls" in none.stderr
    await run.cancel()
    await run.finished()


async def test_a_project_that_does_not_ask_for_it_is_not_recorded(anybody: Outside) -> None:
    run = await started(anybody, "other")
    with run.shell() as screen:
        assert "recorded" not in await screen.until(PROMPT)
        screen.type("exit\n")
        await screen.ended()
    await run.finished()
    assert await recordings(run, 0) == []
