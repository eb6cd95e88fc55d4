"""The stories of deaths with containers for sandboxes: the host process is killed, a client is killed, a holder is."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.acceptance import test_story_kills as kills
from tests.acceptance import test_story_shells as shells
from tests.acceptance.support.outside import Outside, Place, outside, running
from tests.contract.backend_kit import pids_of
from tests.docker_engine import FULL, DockerEngine
from tests.patience import PATIENCE
from tests.whole_system import wait_until


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, docker_engine: DockerEngine) -> Iterator[Place]:
    more = {"PITSTOP_DOCKER_HOST": docker_engine.host, "PITSTOP_DOCKER_IMAGE": FULL, "PITSTOP_DOCKER_WARM": "1"}
    with running(tmp_path_factory.mktemp("dk"), "--slots", "4", "--sandbox", "docker", more=more) as made:
        yield made
    wait_until(lambda: docker_engine.containers() == [], PATIENCE)


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


def sleepers(seconds: str) -> list[str]:
    """The processes of this machine, in containers, too, that sleep so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", seconds.encode()]:
                found.append(path.parent.name)
        except OSError:
            continue
    return found


async def test_the_host_process_is_killed_in_the_middle_of_the_story(anybody: Outside) -> None:
    await kills.test_a_death_in_the_middle_of_the_story(anybody, "sandbox")


async def test_a_shell_goes_on_without_the_host_process(anybody: Outside) -> None:
    run = await anybody.request("true", "echo resumed", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    await shells.test_a_kill_of_the_relay_or_of_the_host_process_leaves_the_shell(anybody, run, "sandbox")


async def test_what_a_killed_client_ran_is_killed_and_the_job_resumes_clean(anybody: Outside) -> None:
    run = await anybody.request("true", "ps -ef", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    with anybody.place.screen(run.job, "sleep 7771 & exec sleep 7772") as client:
        wait_until(lambda: sleepers("7771") and sleepers("7772"), PATIENCE)
        await client.cut()
    await run.hear("ssh.closed", reason="disconnect")
    wait_until(lambda: not sleepers("7771") and not sleepers("7772"), PATIENCE)
    await run.ssh("pitstop-step continue")
    assert await run.finished() == "success"
    assert "sleep 777" not in "\n".join(await run.log(2))


async def test_a_killed_holder_takes_the_container_along_and_the_job_says_so(
    anybody: Outside, docker_engine: DockerEngine
) -> None:
    before = set(docker_engine.containers())
    run = await anybody.request("echo up; sleep 7774")
    await kills.has_lines(run, 1, 1, 1)
    folder = anybody.place.home.dir / "sandbox" / "jobs" / f"{run.job}.1"
    os.kill(pids_of(folder)[-1][0], signal.SIGKILL)
    assert await run.finished() == "error"
    entry = await kills.becomes(run, "finished")
    assert entry["job"]["reason"] == "sandbox_lost" and "holder was killed" in str(run.all("job.finished")[-1])
    wait_until(lambda: not folder.exists() and not sleepers("7774"), PATIENCE)
    wait_until(lambda: len(set(docker_engine.containers()) - before) <= 1, PATIENCE)  # one that is kept ready
