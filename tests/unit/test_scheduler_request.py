"""`run.requested`: what is accepted, what it becomes, and that every faulty field is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pitstop_common.spec import PausePlan, RunSpec, SessionPolicy
from pitstop_scheduler.request import BadRequest, Request, compile_run, read_request

HELLO = (Path(__file__).parents[2] / "examples" / "hello.yml").read_text()
TWO_JOBS = "on: push\njobs:\n  a: {steps: [{run: x}]}\n  b: {steps: [{run: y}, {run: z, id: last}]}\n"
KEY = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
BASE: dict[str, Any] = {"org": "acme", "project": "web"}
STEPS = BASE | {"steps": [{"run": "make"}, {"run": "make test", "id": "test"}]}


def read(body: dict[str, Any] | bytes, subject: str | None = None, **headers: str) -> Request:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_request(data, headers=named, org_of_subject=subject)


def refused(body: dict[str, Any] | bytes, subject: str | None = None, **headers: str) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(body, subject, **headers)
    return caught.value


def faults(body: dict[str, Any] | bytes, subject: str | None = None, **headers: str) -> dict[str, str]:
    found = refused(body, subject, **headers).faults
    assert len({fault.pointer for fault in found}) == len(found)
    return {fault.pointer: fault.message for fault in found}


# -- good ones ---------------------------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    request = read({"org": "acme", "project": "web", "steps": [{"run": "make test"}]})
    run = compile_run(request, run="k3vq7m2ab4xz", created="2026-11-21T01:02:03Z", trace=TRACE)
    (job,) = run.jobs
    assert (run.org, run.project, run.request, run.actor, run.priority) == ("acme", "web", "", "", 0)
    assert (job.job, job.key, job.pool, job.image) == ("k3vq7m2ab4xz-1", "job", "default", "")
    assert [(step.index, step.run, step.name) for step in job.steps] == [(1, "make test", "Run make test")]
    assert (run.created, run.trace, run.session, request.ssh) == ("2026-11-21T01:02:03Z", TRACE, SessionPolicy(), False)
    assert msgspec.json.decode(msgspec.json.encode(run), type=RunSpec) == run


def test_the_largest_request() -> None:
    ssh = {
        "pause": ["before_step", "after_step", "on_failure", "at_end"], "step": "last", "users": ["bob", "bob", "eve"],
        "keys": [KEY + " ada@home", KEY], "connect_window": 60, "idle_timeout": 30.5, "max_duration": 900,
        "on_expiry": "resume",
    }  # fmt: skip
    body = BASE | {
        "id": "build 17/a", "actor": "ada", "workflow": TWO_JOBS, "jobs": ["b"], "env": {"A": "1"}, "pool": "big",
        "source": {"git": "https://example.org/x.git", "ref": "main", "sha": "a" * 40}, "priority": -5, "ssh": ssh,
        "inputs": {}, "secrets": [], "later": {"unknown": True},
    }  # fmt: skip
    request = read(body, "acme")
    run = compile_run(request, run="k3vq7m2ab4xz", created="", trace="")
    (job,) = run.jobs
    assert (run.request, run.actor, run.priority, job.key, job.pool, job.env) == (
        "build 17/a", "ada", -5, "b", "big", {"A": "1"}
    )  # fmt: skip
    assert job.pause == PausePlan(on_failure=True, at_end=True, after_step=2, before_step=2)
    assert run.session == SessionPolicy(
        users=("bob", "eve"), keys=(KEY,), connect_window=60, idle_timeout=30.5, max_duration=900, on_expiry="resume"
    )
    assert (run.source.git, run.source.ref, run.source.sha) == ("https://example.org/x.git", "main", "a" * 40)


def test_jobs_are_numbered_in_the_order_of_the_file() -> None:
    run = compile_run(read(BASE | {"workflow": TWO_JOBS}), run="k3vq7m2ab4xz", created="", trace="")
    assert [(job.job, job.key) for job in run.jobs] == [("k3vq7m2ab4xz-1", "a"), ("k3vq7m2ab4xz-2", "b")]


def test_env_of_the_request_is_over_that_of_the_workflow() -> None:
    (job,) = read(BASE | {"workflow": HELLO, "env": {"GREETING": "ahoy"}}).jobs
    assert job.env == {"GREETING": "ahoy"}


@pytest.mark.parametrize(
    ("ssh", "plan"),
    [
        ({}, PausePlan()),
        ({"pause": "on_failure"}, PausePlan(on_failure=True)),
        ({"pause": "at_end", "direct": True}, PausePlan(at_end=True, direct=True)),
        ({"pause": "after_step", "step": 1}, PausePlan(after_step=1)),
        ({"pause": "after_step", "step": 2.0}, PausePlan(after_step=2)),
        ({"pause": "before_step", "step": "test"}, PausePlan(before_step=2)),
        ({"pause": ["after_step"], "step": "Run make"}, PausePlan(after_step=1)),
    ],
)
def test_pauses(ssh: dict[str, Any], plan: PausePlan) -> None:
    request = read(STEPS | {"ssh": ssh})
    assert request.jobs[0].pause == plan
    assert request.ssh == plan.any


@pytest.mark.parametrize(
    ("headers", "id_", "trace"),
    [
        ({"Nats_Msg_Id": "m1", "TRACEPARENT": TRACE}, "m1", TRACE),
        ({"ce_id": "7", "ce_source": "/ci"}, "/ci#7", ""),
        ({"CE_Id": "7", "traceparent": "rubbish"}, "7", ""),
        ({"traceparent": f"00-{'0' * 32}-{'b' * 16}-01", "ce_source": "x"}, "", ""),
    ],
)
def test_headers_are_used_when_there(headers: dict[str, str], id_: str, trace: str) -> None:
    request = read(STEPS, **headers)
    assert (request.id, request.trace) == (id_, trace)
    assert read(STEPS | {"id": "own"}, **headers).id == "own"


@pytest.mark.parametrize(
    "git",
    [
        "https://h/x",
        "http://h:3000/x.git",
        "ssh://git@h/x",
        "git@h:o/x.git",
        "h:x",
        "git://h/x",
        "/srv/x",
        "file:///x",
        "",
    ],
)
def test_good_sources(git: str) -> None:
    assert read(STEPS | {"source": {"git": git}}).source.git == git


# -- bad ones ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"{'a': 1}", "not JSON"), (b"[1]", "JSON object"),
        (b'{"org": "\xff"}', "not JSON"), (b'{"org": "\\ud800"}', "not JSON"), (b'{"a": 1e999}', "not JSON"),
        (b"[" * 200_000, "deeper than 32"), (b'{"a":' * 80_000, "deeper than 32"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32"),
        (b'{"org": "' + b"x" * 600_000 + b'"}', "bytes long; at most 524288"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_request_at_all(body: bytes, said: str) -> None:
    error = refused(body)
    assert [fault.pointer for fault in error.faults] == [""]
    assert said in error.faults[0].message
    assert (error.org, error.request_id) == ("", "")


def test_brackets_in_strings_are_not_nesting() -> None:
    assert read(STEPS | {"env": {"A": '[{"' * 5000 + "\\"}, "x": [[[[[{}]]]]]})


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"org": "Acme"}, "/org", "lower-case"),
        ({"org": "acme\n"}, "/org", "U+000A"),
        ({"org": None}, "/org", "must be text, not null"),
        ({"project": "a b"}, "/project", "letters"),
        ({"project": "x" * 101}, "/project", "at most 100"),
        ({"id": "x" * 129}, "/id", "129 characters; at most 128"),
        ({"id": "a\x1b[2J"}, "/id", "U+001B"),
        ({"id": 7}, "/id", "must be text, not a number"),
        ({"actor": "ada lovelace"}, "/actor", "user name"),
        ({"pool": "Big"}, "/pool", "lower-case"),
        ({"priority": 101}, "/priority", "at most 100"),
        ({"priority": 1.5}, "/priority", "whole number"),
        ({"priority": True}, "/priority", "not true"),
        ({"image": "a b"}, "/image", "container image"),
        ({"env": []}, "/env", "must be an object, not a list"),
        ({"env": {"A": 1}}, "/env/A", "must be text"),
        ({"env": {"A=B": "1"}}, "/env", "'A=B' cannot be a name"),
        ({"env": {"a/b~": "\0"}}, "/env/a~1b~0", "U+0000"),
        ({"env": {f"A{n}": "" for n in range(201)}}, "/env", "201 entries; at most 200"),
        ({"jobs": ["a"]}, "/jobs", "belongs to `workflow`"),
        ({"jobs": "a"}, "/jobs", "must be a list, not text"),
        ({"inputs": {"a": 1}}, "/inputs", "not supported yet"),
        ({"secrets": ["a b"]}, "/secrets/0", "a context"),
        ({"secrets": ["a"] * 9}, "/secrets", "at most 8"),
        ({"retry": "always"}, "/retry", "one of"),
        ({"failed": True}, "/failed", "belongs to `rerun_of`"),
        ({"source": {"patch": "x", "git": "/x", "sha": "a" * 40}}, "/source/patch", "no diff of git"),
        ({"source": {"patch": "diff --git ", "git": "/x"}}, "/source/sha", "a patch fits one commit"),
        ({"source": {"patch": "YWE=", "patch_encoding": "zlib", "git": "/x", "sha": "a" * 40}}, "/source/patch",
         "is not the base64 of a deflated diff"),
        ({"source": {"patch": "x" * 262145, "git": "/x", "sha": "a" * 40}}, "/source/patch", "262144"),
        ({"source": {"git": "https://t0ken@h/x"}}, "/source/git", "credential"),
        ({"source": {"git": "https://u:t0ken@h/x"}}, "/source/git", "credential"),
        ({"source": {"git": "ssh://u:t0ken@h/x"}}, "/source/git", "credential"),
        ({"source": {"git": "https://h/x?access_token=t0ken"}}, "/source/git", "credential"),
        ({"source": {"git": "ext::sh -c x"}}, "/source/git", "must be a URL"),
        ({"source": {"git": "ftp://h/x"}}, "/source/git", "must begin with"),
        ({"source": {"git": "ssh://-oProxyCommand=x/y"}}, "/source/git", "names no host"),
        ({"source": {"git": "-oProxyCommand=x:y"}}, "/source/git", "must be a URL"),
        ({"source": {"git": "http://[x"}}, "/source/git", "cannot|not a URL"),
        ({"source": {"git": "./x"}}, "/source/git", "absolute path"),
        ({"source": {"git": "/x", "ref": "--upload-pack=x"}}, "/source/ref", "branch"),
        ({"source": {"git": "/x", "sha": "abc"}}, "/source/sha", "full commit id"),
        ({"source": {"ref": "main"}}, "/source/git", "is missing"),
        ({"steps": []}, "/steps", "at least one"),
        ({"steps": {}}, "/steps", "must be a list"),
        ({"steps": [5]}, "/steps/0", "must be a mapping"),
        ({"steps": [{}]}, "/steps/0", "needs `run`"),
        ({"steps": [{"run": "x"}, {"run": 3}]}, "/steps/1/run", "must be text"),
        ({"steps": [{"run": "x", "if": "github.ref"}]}, "/steps/0/if", "not supported yet"),
        ({"steps": [{"run": "x ${{ a }}"}]}, "/steps/0/run", "'${{ a }}' is not supported yet"),
        ({"steps": [{"uses": "a/b@v1"}]}, "/steps/0/uses", "the action 'a/b@v1'"),
        ({"steps": [{"run": "x"}] * 201}, "/steps", "201 steps"),
        ({"ssh": {"pause": "sometimes"}}, "/ssh/pause", "one of after_step, at_end, before_step, on_failure"),
        ({"ssh": {"pause": ["at_end", 1]}}, "/ssh/pause/1", "must be text"),
        ({"ssh": {"pause": "after_step"}}, "/ssh/step", "is missing"),
        ({"ssh": {"step": 1}}, "/ssh/step", "no use without"),
        ({"ssh": {"pause": "after_step", "step": 0}}, "/ssh/step", "at least 1"),
        ({"ssh": {"pause": "after_step", "step": 3}}, "/ssh/step", "no step 3; job job has 1 'Run make', 2 'Run m"),
        ({"ssh": {"pause": "before_step", "step": "tset"}}, "/ssh/step", "no step 'tset'"),
        ({"ssh": {"pause": "after_step", "step": 1, "direct": True}}, "/ssh/direct", "cannot be combined"),
        ({"ssh": {"pause": "at_end", "any_failure": True}}, "/ssh/any_failure", "no use without"),
        ({"ssh": {"direct": "yes"}}, "/ssh/direct", "true or false"),
        ({"ssh": {"users": ["a b"]}}, "/ssh/users/0", "letters"),
        ({"ssh": {"users": ["a"] * 51}}, "/ssh/users", "51 items"),
        ({"ssh": {"keys": [KEY, "ssh-ed25519 AAAA"]}}, "/ssh/keys/1", "cut short"),
        ({"ssh": {"keys": [KEY] * 21}}, "/ssh/keys", "21 items"),
        ({"ssh": {"connect_window": 0}}, "/ssh/connect_window", "more than 0"),
        ({"ssh": {"idle_timeout": 86401}}, "/ssh/idle_timeout", "at most a day"),
        ({"ssh": {"max_duration": "1h"}}, "/ssh/max_duration", "a number, not text"),
        ({"ssh": {"on_expiry": "kill"}}, "/ssh/on_expiry", "one of cancel, resume"),
        ({"ssh": []}, "/ssh", "must be an object, not a list"),
    ],
)  # fmt: skip
def test_a_fault_names_its_field(change: dict[str, Any], pointer: str, said: str) -> None:
    found = faults(STEPS | change)
    assert list(found) == [pointer]
    assert any(part in found[pointer] for part in said.split("|"))
    assert "t0ken" not in found[pointer]


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        (BASE, "", "must have one of `workflow`, `steps` and `rerun_of`"),
        (STEPS | {"workflow": HELLO}, "", "it has both"),
        (BASE | {"workflow": ""}, "/workflow", "at least 1"),
        (BASE | {"workflow": 5}, "/workflow", "must be text"),
        (BASE | {"workflow": HELLO, "image": "x"}, "/image", "belongs to `steps`"),
        (BASE | {"workflow": HELLO, "jobs": ["hallo"]}, "/jobs/0", "no job 'hallo'; it has 'hello'"),
        (BASE | {"workflow": TWO_JOBS, "ssh": {"pause": "after_step", "step": 1}}, "/ssh/step", "there are 2 (a, b)"),
        (BASE | {"workflow": HELLO, "ssh": {"pause": "after_step", "step": 9}}, "/ssh/step", "4 'Clean up'"),
        ({"project": "web", "steps": [{"run": "x"}]}, "/org", "is missing"),
        ({"org": "acme", "steps": [{"run": "x"}]}, "/project", "is missing"),
    ],
)
def test_faults_of_the_whole(body: dict[str, Any], pointer: str, said: str) -> None:
    found = faults(body)
    assert list(found) == [pointer]
    assert said in found[pointer]


def test_a_fault_inside_the_workflow_has_its_line() -> None:
    body = BASE | {"workflow": HELLO.replace("if: always()", "if: github.ref")}
    (fault,) = refused(body).faults
    assert (fault.pointer, fault.line, fault.column) == ("/workflow/jobs/hello/steps/3/if", 24, 13)


def test_all_faults_at_once() -> None:
    body = {
        "org": "acme", "id": "r1", "project": 1, "actor": [], "workflow": "jobs: {a: {needs: b, steps: [{}]}}",
        "source": {"git": "ftp://x"}, "ssh": {"pause": "x", "keys": ["x"], "users": [1], "step": 4},
    }  # fmt: skip
    error = refused(body)
    assert {fault.pointer for fault in error.faults} == {
        "/project", "/actor", "/source/git", "/ssh/pause", "/ssh/keys/0", "/ssh/users/0", "/ssh/step",
        "/workflow/jobs/a/needs", "/workflow/jobs/a/steps/0",
    }  # fmt: skip
    assert (error.org, error.request_id) == ("acme", "r1")


def test_org_and_subject_agree() -> None:
    assert read(STEPS, "acme").org == "acme"
    error = refused(STEPS | {"id": "r1"}, "other")
    assert [(fault.pointer, error.org, error.request_id) for fault in error.faults] == [("/org", "other", "r1")]


def test_unusable_ids_are_not_repeated() -> None:
    error = refused(STEPS | {"org": "a.b", "id": "x" * 200})
    assert (error.org, error.request_id) == ("", "")
    assert refused(b"{", "acme").org == "acme"
    assert refused(b"{", Nats_Msg_Id="m7").request_id == "m7"
    assert faults(STEPS, Nats_Msg_Id="a\nb") == {
        "/id": "the id in the headers must be one line of at most 128 characters"
    }


def test_a_key_is_in_no_fault_and_no_text() -> None:
    error = refused(STEPS | {"ssh": {"keys": [KEY[:-4], 5, {"a": KEY}], "users": [KEY], "on_expiry": KEY}})
    assert KEY.split()[1][:20] not in str(error)


def test_a_workflow_that_compiles_to_more_than_a_message_is_refused() -> None:
    jobs = "".join(f"  j{n}: {{steps: [{{run: x}}]}}\n" for n in range(60))
    body = BASE | {"workflow": f"on: push\nenv: {{A: {'x' * 20_000}}}\njobs:\n{jobs}"}
    assert "bytes when compiled" in faults(body)["/workflow"]
