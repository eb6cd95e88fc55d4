"""Shells that outlive their connection, the relay and the host process: with a real ssh, and everything killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, Run, outside, running
from tests.acceptance.test_story_kills import kill
from tests.patience import PATIENCE
from tests.screens import Screen

BACK = "[pitstop] back in the shell you left"
COUNTING = "for i in $(seq 200); do echo tick $i; sleep 0.05; done"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("shells"), "--slots", "8") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


@pytest.fixture
async def run(anybody: Outside) -> Run:
    made = await anybody.request("true", "echo resumed", ssh={"pause": "after_step", "step": 1, "users": ["bob"]})
    await made.paused()
    return made


async def pid_of(screen: Screen) -> str:
    """Of the shell itself."""
    screen.type("echo sh''ell=$$.\n")
    await screen.until("shell=")
    return await screen.until(".\r\n")


async def test_a_killed_client_finds_its_shell_with_what_it_showed(run: Run) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        before = await pid_of(first)
        first.type(f"HELD=teal; {COUNTING}\n")
        await first.until("tick 3\r\n")
        await first.cut()
    await run.hear("ssh.closed", reason="disconnect")
    with run.shell() as second:
        await second.until(BACK)
        await second.until("tick 3\r\n")
        await second.until("tick 12\r\n")
        second.type("\x03")
        await second.until(PROMPT)
        second.type("echo held=$HELD\n")
        await second.until("held=teal\r\n")
        assert await pid_of(second) == before
        assert not run.all("job.resumed")
        second.type("exit\n")
        await second.ended()
    assert await run.finished() == "success"
    assert run.all("job.resumed")[0]["by"] == "ada"


@pytest.mark.parametrize("service", ["relay", "sandbox"])
async def test_a_kill_of_the_relay_or_of_the_host_process_leaves_the_shell(
    anybody: Outside, run: Run, service: str
) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        before = await pid_of(first)
        first.type(f"{COUNTING}; echo o''ver\n")
        await first.until("tick 2\r\n")
        kill(anybody.place, service)
        await first.ended()
    with run.shell() as second:
        await second.until(BACK)
        seen = await second.until("over\r\n")
        ticks = [int(number) for number in re.findall(r"tick (\d+)\r", seen)]
        assert ticks == list(range(1, 201)), "nothing of it is missing, and nothing comes twice"
        assert await pid_of(second) == before
        second.type("exit\n")
        await second.ended()
    assert await run.finished() == "success"


async def test_a_shell_that_ends_while_nobody_is_there_resumes(run: Run) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        first.type("until [ -e go ]; do sleep 0.05; done; exit\n")
        await first.until("; exit\r\n")
        await first.cut()
    await run.hear("ssh.closed", reason="disconnect")
    await run.ssh("touch go")
    assert await run.finished() == "success"


async def left(screen: Screen) -> None:
    """`less` drops what is typed while it draws, and it draws once for each change of its window."""
    for _ in range(10):
        screen.type("q")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE / 10):
                await screen.until(PROMPT)
                return
    raise AssertionError("less goes on")


async def test_a_full_screen_program_draws_its_screen_again(run: Run) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        first.type("seq -f 'row %g' 500 > rows; less rows\n")
        await first.until("row 23")
        first.type("G")
        await first.until("row 500")
        await first.cut()
    with run.shell(columns=70, rows=20) as second:
        await second.until("\x1b[?1049h")
        await second.until("row 490")
        await left(second)
        second.type("\x15exit\n")
        await second.ended()
    assert await run.finished() == "success"


async def test_who_is_there_already_gets_another_shell_and_one_end_of_two_does_not_resume(run: Run) -> None:
    with run.shell() as first, run.shell() as second:
        await first.until(PROMPT)
        assert BACK not in await second.until(PROMPT)
        assert await pid_of(first) != await pid_of(second)
        second.type("exit\n")
        await second.ended()
        await run.entry(lambda entry: entry["job"]["sessions"] == 1)
        assert not run.all("job.resumed")
        first.type("exit\n")
        await first.ended()
    assert await run.finished() == "success"


async def test_new_asks_for_another_shell_and_the_one_left_behind_keeps_the_job_paused(run: Run) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        before = await pid_of(first)
        await first.cut()
    await run.hear("ssh.closed", 1)
    with run.outside.place.screen(run.job, "new", options=("-t",)) as second:
        assert BACK not in await second.until(PROMPT)
        assert await pid_of(second) != before
        second.type("exit\n")
        await second.ended()
    await run.hear("ssh.closed", 2)
    assert not run.all("job.resumed")
    with run.shell() as third:
        await third.until(BACK)
        assert await pid_of(third) == before
        third.type("exit\n")
        await third.ended()
    assert await run.finished() == "success"


async def test_a_client_that_has_stalled_loses_its_shell_to_a_newer_one(run: Run) -> None:
    with run.shell() as first:
        await first.until(PROMPT)
        before = await pid_of(first)
        os.kill(first.client.pid, signal.SIGSTOP)
        try:
            with run.shell() as second:
                await second.until(BACK)
                assert await pid_of(second) == before
                second.type("exit\n")
                await second.ended()
        finally:
            os.kill(first.client.pid, signal.SIGCONT)
        await first.until("you came in again from elsewhere")
        await first.ended()
    assert await run.finished() == "success"


async def test_nobody_gets_the_shell_of_another(anybody: Outside, run: Run) -> None:
    bob = anybody.place.person("bob")
    await anybody.api("keys-add", {"key": bob.public}, actor="bob")
    with run.shell() as first:
        await first.until(PROMPT)
        before = await pid_of(first)
        await first.cut()
    await run.hear("ssh.closed", 1)
    with run.shell(person=bob) as second:
        await second.until(PROMPT)
        assert await pid_of(second) != before
        second.type("pitstop-step continue\n")
        await second.ended()
    assert await run.finished() == "success"
