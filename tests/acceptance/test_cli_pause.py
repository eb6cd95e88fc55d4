"""`pitstop pause`: a job of somebody else, which asked for no session, is held at the end of its step. Row B9."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from tests.acceptance.support.outside import PROMPT, Place, running
from tests.cli_system import Home, Terminal
from tests.patience import PATIENCE
from tests.whole_system import wait_until

WORKFLOW = """
jobs:
  build:
    steps:
      - {name: fetch, run: "until [ -e one ]; do sleep 0.05; done"}
      - {name: test, run: "export MINE=1; until [ -e two ]; do sleep 0.05; done"}
      - {name: tidy, run: "true"}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("pause"), "--slots", "2") as made:
        yield made


def of_bob(home: Home) -> str:
    """A run that another person started."""
    home.env["PITSTOP_ACTOR"] = "bob"
    run = home.request()
    home.env["PITSTOP_ACTOR"] = "ada"
    wait_until(lambda: home.json("status", run)["jobs"][0]["job"]["status"] == "running", PATIENCE)
    return run


def end_step(home: Home, name: str) -> None:
    """From outside the sandbox: nobody is in it."""
    (work,) = (home.dir / "sandbox/jobs").glob("*/work")
    (work / name).touch()


def killed(place: Place, name: str) -> None:
    pid, before = place.pid(name), len(place.system.said())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: f"{name} is ready again" in place.system.said()[before:], PATIENCE)


def test_held_entered_and_taken_back_while_services_are_killed(place: Place) -> None:
    home = place.home
    home.checkout(WORKFLOW)
    run = of_bob(home)
    refused = home.run("pause", run)
    assert refused.returncode == 4 and "pitstop keys add" in refused.stderr
    home.run("keys", "add", home.public)
    told = home.json("pause", run, "--no-wait")
    assert (told["event"], told["pausing"], told["by"], told["run"]) == ("pausing", True, "ada", run)
    for name in ("scheduler", "sandbox"):
        killed(place, name)
    wait_until(lambda: "will pause after step 1 (asked by ada)" in home.run("status", run).stdout, PATIENCE)
    assert "running, will pause" in home.run("top").stdout
    assert "does not pause" in home.run("pause", run, "--off").stderr
    with home.start("pause", run, "-i", str(home.key)) as piped:
        assert 'pauses when step 1 "fetch" ends' in piped.progress() + piped.progress()
        end_step(home, "one")
        status, stdout, _ = piped.end()
    assert status == 0 and len(stdout.splitlines()) == 1 and stdout.startswith("ssh "), stdout
    again = home.run("pause", run)
    assert again.returncode == 2 and "paused already" in again.stderr and "pitstop ssh" in again.stderr
    assert "as asked while it ran, by ada" in home.run("status", run).stdout
    assert home.run("ssh", run, "-i", str(home.key), "--", "continue").returncode == 0
    terminal = Terminal(home, "pause", run, "-i", str(home.key))
    terminal.wait_for('pauses when step 2 "test" ends')
    end_step(home, "two")
    terminal.wait_for("as ada asked while it ran")
    terminal.wait_for(PROMPT)
    terminal.type("exit\n")
    assert terminal.end() == 0
    wait_until(lambda: home.json("status", run)["run"]["result"] == "success", PATIENCE)
    ended = home.run("pause", run)
    assert ended.returncode == 2 and "has ended (success)" in ended.stderr
    said = [json.loads(line) for line in home.run("audit", run, "-o", "json").stdout.splitlines()]
    asked = [(one["user"], one["what"]) for one in said if one["type"] == "run.pause"]
    assert asked == [("ada", ""), ("ada", "off"), ("ada", ""), ("ada", "")]
    assert "asked for a pause at the end of the step" in home.run("audit", run).stdout


def test_a_job_that_ends_before_its_pause_says_so(place: Place) -> None:
    home = place.home
    home.checkout(WORKFLOW)
    home.run("keys", "add", home.public)
    run = of_bob(home)
    with home.start("pause", run, "-i", str(home.key), "-o", "json") as piped:
        assert json.loads(piped.line())["pausing"]
        home.run("cancel", run)
        status, _, stderr = piped.end()
    assert status == 5 and "did not come to its pause" in stderr
