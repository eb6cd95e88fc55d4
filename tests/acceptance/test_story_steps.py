"""A workflow file's jobs and steps as they run, seen by their log: rows A3 (jobs), A4, A7 and E1."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import Outside, Place, Run, outside, running

FILE = """
name: everything
env: {LEVEL: file, FILE: "1"}
defaults:
  run: {shell: bash}
jobs:
  build:
    name: Build it
    runs-on: ubuntu-latest
    env: {LEVEL: job, JOB: "2"}
    steps:
      - name: levels
        env: {LEVEL: step}
        run: echo $LEVEL $FILE $JOB
      - run: echo $LEVEL; false | true; echo not reached
        continue-on-error: true
      - shell: sh
        run: false | true; echo reached; echo ${BASH_VERSION-none}
      - shell: python
        run: |
          import os, sys
          print("python", sys.version_info.major, os.environ["LEVEL"])
      - id: exports
        working-directory: sub/dir
        run: |
          pwd
          printf 'MANY<<END\\na\\nb\\nEND\\nONE=1\\n' >>$GITHUB_ENV
          printf '#!/bin/sh\\necho tool of mine\\n' >tool; chmod +x tool; pwd >>$GITHUB_PATH
          echo answer=42 >>$GITHUB_OUTPUT; echo '# done' >>$GITHUB_STEP_SUMMARY
      - run: echo "$MANY" $ONE; tool; ls sub
      - name: hide
        run: |
          echo "::add-mask::hunter2"
          echo "it is hunter2"; echo -n hun; sleep 0.3; echo ter2
          echo "seen=hunter2 and more" >>$GITHUB_OUTPUT; echo "not hunter2" >>$GITHUB_STEP_SUMMARY
          echo "::group::inside"; echo "::error file=a.py,line=3::wrong"; echo "::endgroup::"
      - name: still hidden
        run: echo hunter2 again
      - if: failure()
        run: echo no failure yet
      - run: exit 9
      - run: echo never
      - if: ${{ failure() }}
        run: echo failed
      - if: always()
        run: echo always
      - if: cancelled()
        run: echo not cancelled
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("steps"), "--slots", "6") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def results(run: Run) -> list[str]:
    return [step["result"] for step in await run.steps()]


async def test_a_file_with_all_that_steps_can_say(anybody: Outside) -> None:
    made = FILE.replace("      - name: levels", "      - run: mkdir -p sub/dir\n      - name: levels")
    run = await anybody.request(workflow=made)
    assert await run.finished() == "failure"
    await run.hear("job.finished")
    logs = {number: await run.log(number) for number in range(1, 16)}
    assert logs[2] == ["step 1 2"]
    assert logs[3] == ["job"], "bash of a file means -eo pipefail"
    assert logs[4] == ["reached", "none"]
    assert logs[5] == ["python 3 job"]
    assert logs[6] == ["/home/runner/work/sub/dir"]
    assert logs[7] == ["a", "b 1", "tool of mine", "dir"]
    assert logs[8] == ["it is ***", "***", "::group::inside", "::error file=a.py,line=3::wrong", "::endgroup::"]
    assert logs[9] == ["*** again"]
    assert (logs[10], logs[11], logs[12]) == ([], [], [])
    assert (logs[13], logs[14], logs[15]) == (["failed"], ["always"], [])
    assert await results(run) == [
        "success", "success", "failure", "success", "success", "success", "success", "success", "success", "skip",
        "failure", "skip", "success", "success", "skip",
    ]  # fmt: skip
    outputs = [step["outputs"] for step in await run.steps()]
    assert (outputs[5], outputs[7]) == ({"answer": "42"}, {"seen": "*** and more"})
    assert not any(found for number, found in enumerate(outputs) if number not in {5, 7})
    summary = anybody.place.home.run("logs", "--summary", run.id, "--org", "acme")
    assert summary.stdout.splitlines() == [
        "<!-- build, step 6: Run pwd -->", "# done", "<!-- build, step 8: hide -->", "not ***",
    ]  # fmt: skip
    shown = anybody.place.home.run("logs", run.id, "--org", "acme").stdout
    assert "# done" not in shown
    kept = b"".join(message.data for message in await anybody.stored("LOGS", f"logs.acme.{run.id}.*"))
    assert b"hunter2" not in kept


async def test_the_summary_and_outputs_of_the_newest_try_count_and_what_does_not_fit_is_told(anybody: Outside) -> None:
    script = """
        echo "try=$(ls tries 2>/dev/null | wc -l)" >>$GITHUB_OUTPUT; mkdir -p tries; touch tries/$(ls tries | wc -l)
        ls tries | wc -l >$GITHUB_STEP_SUMMARY
        head -c 20000 /dev/zero | tr '\\0' x | sed 's/^/large=/' >>$GITHUB_OUTPUT
        test -e repaired
    """
    run = await anybody.request(script, ssh={"pause": "on_failure"})
    await run.paused()
    done = await run.ssh("touch repaired; pitstop-step retry && pitstop-step continue")
    assert done.status == 0, done
    assert await run.finished() == "success"
    assert [step["outputs"] for step in await run.steps()] == [{"try": "1"}]
    (told,) = [line for line in await run.log(1, tries=2) if line.startswith("::warning::")]
    assert told.startswith("::warning::GITHUB_OUTPUT: large: over 16384 bytes of outputs in the job; left out")
    answer = anybody.place.home.run("logs", "--summary", run.id, "--org", "acme", "-o", "json")
    (chunk,) = [json.loads(line) for line in answer.stdout.splitlines()]
    assert (chunk["kind"], chunk["tries"], chunk["lines"]) == ("summary", 2, ["2"])
    silent = await anybody.request("true")
    assert await silent.finished() == "success"
    none = anybody.place.home.run("logs", "--summary", silent.id, "--org", "acme")
    assert (none.stdout, none.stderr) == ("", "no step of the run has written a summary\n")
    assert anybody.place.home.run("logs", "--summary", "-f", silent.id, "--org", "acme").returncode == 2


async def test_jobs_of_a_file_are_independent(anybody: Outside) -> None:
    text = """
    jobs:
      good: {steps: [{run: "echo fine"}]}
      bad: {steps: [{run: "exit 1"}]}
      other: {name: Another, steps: [{run: "echo other"}]}
    """
    run = await anybody.request(workflow=text)
    assert await run.finished() == "failure"
    ended = (await run.hear("run.finished"))["jobs"]
    assert ended == {"good": "success", "bad": "failure", "other": "success"}
    assert await run.log(1, job=run.jobs["other"]) == ["other"]
    some = await anybody.request(workflow=text, jobs=["good", "Another"])
    assert await some.finished() == "success"
    assert set(some.jobs) == {"good", "other"}


async def test_the_time_of_a_job_stands_still_while_it_is_paused(anybody: Outside) -> None:
    text = 'jobs: {build: {timeout-minutes: 0.01, steps: [{run: "true"}, {run: "echo on time"}]}}'
    pause = {"pause": "after_step", "step": 1, "connect_window": 1.2, "on_expiry": "resume"}
    run = await anybody.request(workflow=text, ssh=pause)
    assert await run.finished() == "success"
    assert await run.log(2) == ["on time"]
    late = await anybody.request(workflow=text.replace('"true"', '"sleep 60"'))
    assert await late.finished() == "timeout"


async def test_the_log_tells_where_it_runs_and_how_to_enter(anybody: Outside) -> None:
    run = await anybody.request("true", ssh={"pause": "at_end"})
    await run.paused()
    shown = anybody.place.home.run("logs", run.id, "--org", "acme").stdout
    assert f"({run.job}) of acme/web" in shown and "Sandbox: namespaces" in shown
    command = f"ssh -p {anybody.place.facts['ssh']['port']} {run.job}@127.0.0.1"
    assert shown.count(f"Enter with: {command}") == 2, "when the sandbox stands, and again while it waits"
    assert "Let in: ada" in shown and anybody.place.person().fingerprint in shown
    await run.cancel()
    await run.finished()


class Repository:
    """A repository on this machine with two commits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.first = self.commit("one")
        self.second = self.commit("two")

    def git(self, *args: str) -> str:
        who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
        done = subprocess.run(["git", "-C", self.folder, *who, *args], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, name: str) -> str:
        (self.folder / name).write_text(f"{name}\n")
        self.git("add", ".")
        self.git("commit", "-qm", name)
        return self.git("rev-parse", "HEAD")


@pytest.mark.parametrize("which", ["sha", "ref", "head"])
async def test_checkout_has_the_commit_that_was_asked_for(anybody: Outside, tmp_path: Path, which: str) -> None:
    made = Repository(tmp_path / "repo")
    source: dict[str, Any] = {"git": str(made.folder)}
    source |= {"sha": {"sha": made.first}, "ref": {"ref": "main"}, "head": {}}[which]
    run = await anybody.request({"uses": "actions/checkout@v4"}, "git rev-parse HEAD; ls; git status --porcelain",
                                source=source)  # fmt: skip
    assert await run.finished() == "success", await run.log(1)
    expected = [made.first, "one"] if which == "sha" else [made.second, "one", "two"]
    assert await run.log(2) == expected


async def test_a_checkout_that_cannot_be_says_why(anybody: Outside, tmp_path: Path) -> None:
    made = Repository(tmp_path / "repo")
    gone = "0123456789" * 4
    run = await anybody.request({"uses": "actions/checkout@v4"}, source={"git": str(made.folder), "sha": gone})
    assert await run.finished() == "failure"
    await run.hear("job.finished")
    shown = anybody.place.home.run("logs", run.id, "--org", "acme").stdout
    assert gone[:7] in shown, shown


async def test_an_action_that_is_not_built_in_is_named_before_anything_runs(anybody: Outside) -> None:
    text = "jobs: {build: {steps: [{run: 'true'}, {name: Node, uses: actions/setup-node@v4}]}}"
    await anybody.publish({"org": "acme", "project": "web", "workflow": text})
    (fault,) = (await anybody.hear("run.rejected"))["errors"]
    assert fault["pointer"] == "/workflow/jobs/build/steps/1/uses"
    assert "actions/setup-node@v4" in fault["message"] and fault["line"] == 1


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
