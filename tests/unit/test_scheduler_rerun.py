"""What a rerun takes from the run that it does again, and what it refuses. Row A9."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pitstop_common.ids import job_id, run_id
from pitstop_common.spec import PausePlan, RunSpec
from pitstop_scheduler.origin import inherit, inherits_session, without_session
from pitstop_scheduler.request import BadRequest, Request, compile_run, read_request

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC9oSQwF0s9GFMb0o0i3ZU5FQIABeQIVr0pE8GjasSE1"
FIRST = run_id("acme", "first")
WORKFLOW = """
jobs:
  build: {steps: [{run: make}, {run: make test}]}
  lint: {name: Lint it, steps: [{run: make lint}]}
"""
BODY = {"org": "acme", "project": "web", "rerun_of": FIRST, "actor": "bob"}


def read(body: dict[str, Any]) -> Request:
    return read_request(json.dumps(body).encode(), headers={}, org_of_subject=None)


def first(**more: Any) -> RunSpec:
    request = read({
        "org": "acme", "project": "web", "id": "first", "actor": "ada", "workflow": WORKFLOW, "priority": 7,
        "retry": "infrastructure", "env": {"A": "1"}, "source": {"git": "https://h/x", "ref": "main", "sha": "0" * 40},
        "ssh": {"pause": "on_failure", "users": ["eve"], "keys": [KEY], "idle_timeout": 60}, **more,
    })  # fmt: skip
    return compile_run(request, run=FIRST, created="2026-11-21T00:00:00Z", trace="")


def again(results: dict[str, str] | None = None, origin: RunSpec | None = None, **more: Any) -> Request:
    return inherit(read(BODY | more), origin or first(), results or {})


def faults(**more: Any) -> dict[str, str]:
    with pytest.raises(BadRequest) as caught:
        again(**more)
    assert caught.value.org == "acme"
    return {fault.pointer: fault.message for fault in caught.value.faults}


def test_the_inputs_are_those_of_the_first_run_and_the_actor_is_who_asked() -> None:
    request, origin = again(), first()
    spec = compile_run(request, run=run_id("acme", "second"), created="", trace="")
    plain = [msgspec.structs.replace(job, job="") for job in origin.jobs]
    assert [msgspec.structs.replace(job, job="") for job in spec.jobs] == plain
    assert [job.job for job in spec.jobs] == [job_id(spec.run, 1), job_id(spec.run, 2)]
    assert (spec.source, spec.priority, spec.retry) == (origin.source, 7, "infrastructure")
    assert (spec.actor, spec.rerun_of) == ("bob", FIRST)


def test_pauses_and_times_are_inherited_and_people_and_keys_are_not() -> None:
    request = again()
    assert request.ssh and inherits_session(request)
    assert (request.session.users, request.session.keys, request.session.idle_timeout) == ((), (), 60)


def test_a_session_of_its_own_takes_the_place_of_the_first_ones() -> None:
    request = again(ssh={"pause": "at_end", "users": ["joe"]}, priority=0, retry="")
    assert not inherits_session(request)
    assert [job.pause for job in request.jobs] == [PausePlan(at_end=True)] * 2
    assert (request.session.users, request.session.idle_timeout) == (("joe",), 900)
    assert (request.priority, request.retry) == (0, "")
    assert not again(ssh={}).ssh


def test_a_session_that_is_not_allowed_any_more_is_left_out_and_said() -> None:
    request = without_session(again(), "SSH is disabled")
    assert (request.ssh, request.notes) == (False, ("SSH is disabled",))
    assert compile_run(request, run=FIRST, created="", trace="").notes == ("SSH is disabled",)


def test_a_rerun_of_a_rerun_is_the_same_again() -> None:
    second = compile_run(again(), run=run_id("acme", "second"), created="", trace="")
    third = again(origin=second, rerun_of=second.run, actor="cid")
    assert [job.steps for job in third.jobs] == [job.steps for job in first().jobs]
    assert third.again is not None and (third.actor, third.again.of) == ("cid", second.run)


@pytest.mark.parametrize("name", ["lint", "Lint it", job_id(FIRST, 2)])
def test_one_job_by_its_key_name_or_id(name: str) -> None:
    assert [job.key for job in again(jobs=[name]).jobs] == ["lint"]


def test_only_what_did_not_succeed() -> None:
    results = {job_id(FIRST, 1): "failure", job_id(FIRST, 2): "success"}
    assert [job.key for job in again(results, failed=True).jobs] == ["build"]
    assert "every job of run" in faults(results=dict.fromkeys(results, "success"), failed=True)["/failed"]
    assert "these jobs of run" in faults(results=results, failed=True, jobs=["lint"])["/failed"]
    assert "has not ended" in faults(results=results | {job_id(FIRST, 2): ""}, failed=True)["/failed"]


@pytest.mark.parametrize("name", ["workflow", "steps", "image", "source", "env", "pool", "inputs", "secrets"])
def test_what_comes_from_the_first_run_cannot_be_given(name: str) -> None:
    values: dict[str, Any] = {"workflow": WORKFLOW, "steps": [{"run": "make"}], "image": "x", "pool": "big",
                              "secrets": ["a"]}  # fmt: skip
    given = values.get(name, {"a": "b"} if name in {"env", "inputs"} else {})
    with pytest.raises(BadRequest) as caught:
        read(BODY | {name: given})
    said = {fault.pointer: fault.message for fault in caught.value.faults}
    assert f"/{name}" in said and "leave it out" in said[f"/{name}"]


def test_other_faults_name_their_field() -> None:
    assert faults(project="api") == {"/project": f"there is no run {FIRST} in this project"}
    assert faults(jobs=["lint", "x"]) == {"/jobs/1": f"run {FIRST} has no such job; it has build, lint"}
    assert list(faults(ssh={"pause": "after_step", "step": 1})) == ["/ssh/step"]
    assert list(faults(ssh={"keys": ["x"]})) == ["/ssh/keys/0"]
    for bad in ("", "x", "ABCDEFGHIJKL", 5):
        with pytest.raises(BadRequest) as caught:
            read(BODY | {"rerun_of": bad})
        assert [fault.pointer for fault in caught.value.faults] == ["/rerun_of"]
