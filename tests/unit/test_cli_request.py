"""What `pitstop run` finds out before anything is published."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_cli.durations import duration
from pitstop_cli.exits import USAGE, Failure
from pitstop_cli.request import Plan, SshOptions, plan
from pitstop_common.ids import run_id

ONE = """
jobs:
  build:
    steps:
      - {name: fetch, run: "true"}
      - {name: make, run: "true"}
"""
TWO = ONE + '  lint:\n    steps: [{run: "true"}]\n'
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9oSQwF0s9GFMb0o0i3ZU5FQIABeQIVr0pE8GjasSE1"


def made(workflow: str = ONE, jobs: tuple[str, ...] = (), ssh: SshOptions = SshOptions()) -> Plan:  # noqa: B008
    return plan(
        org="acme", request="r1", project="web", workflow=workflow, name=".pitstop/workflows/ci.yml", jobs=jobs,
        source={"git": "/src", "ref": "main", "sha": "0" * 40}, ssh=ssh,
    )  # fmt: skip


def test_the_run_is_known_before_it_is_asked_for() -> None:
    assert made().run == run_id("acme", "r1")
    assert made().body["id"] == "r1"
    assert "ssh" not in made().body


def test_a_pause_is_put_into_the_request_and_into_words() -> None:
    planned = made(ssh=SshOptions(after_step=2, on_failure=True, users=("bob",), keys=(KEY,), idle_timeout=60.0))
    assert planned.body["ssh"] == {
        "pause": ["after_step", "on_failure"], "step": 2, "users": ["bob"], "keys": [KEY], "idle_timeout": 60.0,
    }  # fmt: skip
    assert planned.pause == "pause after step 2 (make), pause when a step fails"


def test_direct_is_no_pause() -> None:
    assert made(ssh=SshOptions(direct=True)).body["ssh"] == {"direct": True}


@pytest.mark.parametrize("step", [0, -1, 3])
def test_a_step_that_is_not_there_is_named_with_those_that_are(step: int) -> None:
    with pytest.raises(Failure, match=f"--ssh-after-step {step}: job build has 2 steps") as failure:
        made(ssh=SshOptions(after_step=step))
    assert failure.value.code == USAGE
    assert "1 fetch\n  2 make" in failure.value.next


@pytest.mark.parametrize("ssh", [SshOptions(direct=True), SshOptions(after_step=1)])
def test_a_place_in_a_job_needs_exactly_one_job(ssh: SshOptions) -> None:
    with pytest.raises(Failure, match="needs exactly one job; this run has 2") as failure:
        made(TWO, ssh=ssh)
    assert (failure.value.code, failure.value.next) == (USAGE, "name one: --job build, --job lint")
    assert made(TWO, jobs=("build",), ssh=ssh).jobs == ("build",)


@pytest.mark.parametrize("other", [{"after_step": 1}, {"on_failure": True}, {"at_end": True}])
def test_a_terminal_at_once_excludes_a_pause(other: dict[str, int]) -> None:
    with pytest.raises(Failure, match="cannot be combined"):
        made(ssh=SshOptions(direct=True, **other))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [{"users": ("bob",)}, {"keys": (KEY,)}, {"max_duration": 9.0}])
def test_session_options_need_a_session(part: dict[str, object]) -> None:
    with pytest.raises(Failure, match="need a session"):
        made(ssh=SshOptions(**part))  # type: ignore[arg-type]


def test_on_failure_takes_any_number_of_jobs() -> None:
    assert made(TWO, ssh=SshOptions(on_failure=True)).jobs == ("build", "lint")


def test_faults_of_the_file_are_told_as_editors_read_them() -> None:
    with pytest.raises(Failure) as failure:
        made("jobs:\n  build:\n    needs: x\n    steps: [{run: a}]\n")
    assert failure.value.code == USAGE
    assert "\n.pitstop/workflows/ci.yml:3:" in failure.value.what


def test_a_job_that_is_not_there() -> None:
    with pytest.raises(Failure, match="nope"):
        made(jobs=("nope",))


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2m ", 120)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@given(st.text(max_size=8))
def test_any_other_duration_is_refused(text: str) -> None:
    try:
        assert duration(text) > 0
    except ValueError as error:
        assert "is not a duration" in str(error)
