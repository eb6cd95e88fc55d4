"""`pitstop hold`: a failure of somebody else's run waits for me, with real sandboxes and a real ssh. Row A11."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli_system import Home, processes_of, up
from tests.patience import PATIENCE
from tests.whole_system import wait_until

FAILING = """
jobs:
  build:
    steps:
      - run: export WHERE=here; cd /tmp; echo "WHERE=here" >> "$GITHUB_ENV"
      - name: test
        run: exit 7
      - name: tidy
        if: always()
        run: echo tidied
  lint:
    steps: [{run: "true"}]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    with up(made, "--slots", "4"):
        yield made
    assert processes_of(made.folder) == {}


def test_two_failures_of_a_job_wait_for_me_and_the_third_does_not(home: Home) -> None:
    home.checkout(FAILING)
    refused = home.run("hold", "--job", "build")
    assert refused.returncode == 4 and "pitstop keys add" in refused.stderr
    home.run("keys", "add", home.public)
    made = home.json("hold", "--job", "build", "--branch", "main", "--count", "2", "--expires", "1d")
    assert (made["project"], made["user"], made["left"]) == ("repo", "ada", 2)
    assert "the next 2 failures of repo, job build, branch main, wait for ada" in home.run("hold", "ls").stdout
    home.env["PITSTOP_ACTOR"] = "bob"
    runs = [home.request(), home.request()]  # bob has no key, and asks for no session
    home.env["PITSTOP_ACTOR"] = "ada"
    for run in runs:
        entry = home.paused(run)
        assert (entry["job"]["key"], entry["job"]["held_for"]) == ("build", "ada")
        assert f"held for ada (hold {made['hold']})" in home.run("status", run).stdout
        inside = home.run("ssh", run, "--failed", "-i", str(home.key), "--", "echo $WHERE; pitstop-step continue")
        assert (inside.returncode, inside.stdout.splitlines()[0]) == (0, "here"), inside.stderr
        wait_until(lambda run=run: home.json("status", run)["run"]["result"] == "failure", PATIENCE)
        steps = home.json("status", run)["jobs"][0]["report"]["steps"]
        assert [step["result"] for step in steps] == ["success", "failure", "success"]
        assert "Let in: ada" in home.run("logs", run).stdout and "Let in: bob" not in home.run("logs", run).stdout
    assert home.json("hold", "ls")["holds"] == []
    third = home.run("run")
    assert third.returncode == 1, third.stderr
    made = home.json("hold", "--project", "repo")
    assert home.run("hold", "rm", made["hold"]).returncode == 0
    gone = home.run("hold", "rm", made["hold"])
    assert gone.returncode == 5 and "pitstop hold ls" in gone.stderr
