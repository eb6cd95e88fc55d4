"""Runs again, debug mode, and the way into the job that failed: as a person types it. Rows A9, A10, C18."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cli_system import Home, Terminal, processes_of, up
from tests.patience import PATIENCE
from tests.whole_system import wait_until

TWO = """
jobs:
  build:
    steps:
      - run: echo building
      - name: test
        run: exit 7
  lint:
    steps: [{run: "echo linting"}]
"""
CAUSES = """
jobs:
  bash:
    steps: [{shell: bash, run: "exit 3"}]
  pipefail:
    steps: [{shell: bash, run: "false | true"}]
  sh:
    steps: [{shell: sh, run: "exit 4"}]
  python:
    steps: [{shell: python, run: "raise SystemExit(5)"}]
  missing:
    steps: [{shell: pwsh, run: "exit 0"}]
  killed:
    steps: [{run: "kill -9 $$"}]
  checkout:
    steps: [{uses: actions/checkout@v4, with: {ref: no-such-branch}}]
  timeout:
    steps: [{run: sleep 60, timeout-minutes: 0.01}]
  job-timeout:
    timeout-minutes: 0.01
    steps: [{run: sleep 60}]
  later:
    steps: [{run: "true"}, {run: "exit 6"}, {run: "echo never"}]
"""
MAY_FAIL = """
jobs:
  build:
    steps:
      - {name: shaky, run: exit 9, continue-on-error: true}
      - run: echo after
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One system for the tests of this file."""
    made = Home(tmp_path_factory.mktemp("rerun"))
    with up(made, "--slots", "12"):
        made.run("keys", "add", made.public)
        yield made
    assert processes_of(made.folder) == {}


@pytest.fixture(autouse=True)
def _nothing_left(home: Home) -> Iterator[None]:
    yield
    for run in home.json("ls")["runs"]:
        home.run("cancel", run["run"])
    wait_until(lambda: home.json("ls")["runs"] == [], PATIENCE)


def ended(home: Home, *args: str) -> str:
    """A run that has failed."""
    run = home.request(*args)
    wait_until(lambda: home.json("status", run)["run"]["status"] == "finished", PATIENCE)
    return run


def all_paused(home: Home, run: str) -> dict[str, dict[str, Any]]:
    """The jobs of a run by key, when each waits for its person."""
    found: dict[str, dict[str, Any]] = {}

    def look() -> bool:
        found.update({entry["job"]["key"]: entry for entry in home.json("status", run)["jobs"]})
        assert all(entry["job"]["status"] != "finished" for entry in found.values()), found
        return all(entry["job"]["status"] == "paused" for entry in found.values())

    wait_until(look, 60)
    return found


def test_debug_mode_stops_at_every_cause_of_a_failure_on_the_first_run(home: Home) -> None:
    home.checkout(CAUSES)
    jobs = all_paused(home, home.request("--ssh-on-failure"))
    assert {entry["report"]["paused"] for entry in jobs.values()} == {"on_failure"}
    at = {key: entry["report"]["paused_step"] for key, entry in jobs.items()}
    assert at == {**dict.fromkeys(at, 1), "later": 2} and len(at) == 10
    ends = {key: entry["report"]["steps"][at[key] - 1] for key, entry in jobs.items()}
    codes = {key: ends[key]["exit_code"] for key in ("bash", "pipefail", "sh", "python", "killed", "later")}
    assert codes == {"bash": 3, "pipefail": 1, "sh": 4, "python": 5, "killed": 137, "later": 6}
    results = {key: step["result"] for key, step in ends.items() if step["result"] != "failure"}
    assert results == {"timeout": "timeout", "job-timeout": "timeout"}
    assert all(entry["report"]["ssh"]["command"] for entry in jobs.values())


def test_a_step_that_may_fail_stops_only_who_asks_for_it(home: Home) -> None:
    home.checkout(MAY_FAIL)
    assert home.run("run", "--ssh-on-failure").returncode == 0
    run = home.request("--ssh-on-any-failure")
    paused = home.paused(run)
    assert (paused["report"]["paused"], paused["report"]["paused_step"]) == ("on_failure", 1)
    inside = home.run("ssh", run, "-i", str(home.key), "--", "pitstop-step continue")
    assert inside.returncode == 0, inside.stderr
    wait_until(lambda: home.json("status", run)["run"]["result"] == "success", PATIENCE)


def test_the_failed_job_again_in_debug_mode_opens_the_terminal_at_its_pause(home: Home) -> None:
    home.checkout(TWO)
    first = ended(home)
    person = Terminal(home, "rerun", first, "--failed", "--ssh-on-failure", "--ssh-key", home.public)
    person.wait_for("Paused because step 2 failed: step 2 of 2 (test), exit code 7", 60)
    assert f"rerun of {first}" in person.seen and "lint" not in person.seen
    person.type("echo $((6*7)) inside\n")
    person.wait_for("42 inside")
    person.type("exit\n")
    assert person.end() == 1
    status = home.json("status", first)
    again = home.json("status", status["reruns"][0]["run"])
    assert again["run"]["rerun_of"] == first
    assert [entry["job"]["key"] for entry in again["jobs"]] == ["build"]
    page = home.run("status", first).stdout
    assert f"done again by ada: {again['run']['run']}" in page
    assert f"rerun of {first}" in home.run("status", again["run"]["run"]).stdout


def test_a_rerun_follows_its_run_and_ends_as_it_does(home: Home) -> None:
    home.checkout(TWO)
    first = ended(home)
    done = home.run("rerun", first, "--job", "lint")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "linting"), done.stderr
    lines = home.run("rerun", first, "-o", "json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["accepted", "finished"]
    assert (events[0]["rerun_of"], events[1]["exit_code"]) == (first, 1)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--ssh",), 2, "--ssh needs exactly one job; this run has 2"),
        (("--ssh", "--no-ssh"), 2, "exclude each other"),
        (("--job", "nix"), 2, "/jobs/0 run"),
        (("--failed", "--job", "lint"), 2, "these jobs of run"),
        (("--failed", "--ssh-after-step", "9"), 2, "no step 9"),
    ],
)
def test_what_cannot_be_done_again_is_a_usage_error(home: Home, args: tuple[str, ...], code: int, said: str) -> None:
    home.checkout(TWO)
    done = home.run("rerun", ended(home), *args)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_ssh_failed_opens_the_job_that_failed_and_says_when_none_can(home: Home) -> None:
    home.checkout(TWO.replace("echo linting", "sleep 60"))
    run = home.request("--ssh-on-failure")
    into = ("ssh", run, "--failed", "-i", str(home.key))
    done = home.run(*into, "--", "echo $GITHUB_JOB; exit 3")
    assert (done.returncode, done.stdout) == (3, "build\n"), done.stderr
    home.run("cancel", run)
    done = home.run(*into)
    assert done.returncode == 5 and f"pitstop rerun {run} --failed --ssh-on-failure" in done.stderr
