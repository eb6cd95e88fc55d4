"""Any bytes at all: a request or a BadRequest, in bounded time; the validator and the JSON Schema agree."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from pitstop_common.faults import Faults
from pitstop_common.requests import RunRequest
from pitstop_common.validation import check_struct
from pitstop_scheduler.request import BadRequest, Request, compile_run, read_request

SECONDS = 3.0
"""Generous for a loaded machine; what these inputs do unbounded takes minutes."""

FIELDS = [
    "org",
    "project",
    "id",
    "actor",
    "workflow",
    "jobs",
    "steps",
    "image",
    "source",
    "env",
    "pool",
    "priority",
    "ssh",
]
INNER = [
    "git", "ref", "sha", "patch", "pause", "step", "direct", "users", "keys", "connect_window", "idle_timeout",
    "max_duration", "on_expiry", "run", "uses", "with", "name", "if", "shell", "A", "a/b",
]  # fmt: skip
TEXTS = st.sampled_from(
    ["acme", "on_failure", "after_step", "cancel", "bash", "actions/checkout@v4", "https://h/x", "ssh-ed25519 AAAA", "",
     "on: push\njobs: {a: {steps: [{run: x}]}}\n", "always()", "a" * 40, "a\n", "x" * 201]
)  # fmt: skip
SCALARS = TEXTS | st.text(max_size=5) | st.integers(-5, 300) | st.floats(allow_nan=False) | st.booleans() | st.none()
KEYS = st.sampled_from(INNER) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
ANY_LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=128),
    "actor": st.from_regex(r"[A-Za-z0-9_-]{0,64}", fullmatch=True),
    "pool": st.just("default"),
    "priority": st.integers(-100, 100),
    "env": st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), ANY_LINES),
    "source": st.just({"git": "https://h/x", "ref": "main"}),
    "ssh": st.fixed_dictionaries({}, optional={
        "pause": st.sampled_from(["at_end", ["on_failure"], []]), "direct": st.booleans(), "users": st.just(["bob"]),
        "connect_window": st.integers(1, 86400) | st.floats(0.5, 86400), "on_expiry": st.just("resume"),
    }),
}  # fmt: skip
ROOT = {"org": "acme", "project": "web", "steps": [{"run": "x"}]}
MIXED = st.fixed_dictionaries({}, optional=GOOD).flatmap(
    lambda good: st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2).map(lambda odd: ROOT | good | odd)
)


def outcome(data: bytes, headers: dict[str, str] | None = None, subject: str | None = None) -> Request | BadRequest:
    try:
        request = read_request(data, headers=headers or {}, org_of_subject=subject)
    except BadRequest as error:
        assert error.faults and str(error)
        assert len(msgspec.json.encode(error.faults)) < 256 * 1024
        return error
    assert compile_run(request, run="k3vq7m2ab4xz", created="", trace="").jobs
    return request


def leads_somewhere(body: Any, pointer: str) -> bool:
    """Each part but the last exists; the last may be what is missing."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in parts[:-1]:
        if isinstance(body, str):  # into the workflow's text
            return True
        body = body[int(part)] if isinstance(body, list) else body[part]
    return True


@given(
    st.binary(),
    st.dictionaries(st.sampled_from(["Nats-Msg-Id", "traceparent", "ce-id"]), st.text()),
    st.text() | st.none(),
)
def test_any_bytes_and_headers(data: bytes, headers: dict[str, str], subject: str | None) -> None:
    outcome(data, headers, subject)
    outcome(b'{"org":"acme","project":"web","steps":[{"run":"x"}],"id":' + data, headers, subject)


@given(VALUES | MIXED)
def test_any_json_is_a_run_or_faults_whose_pointers_lead_somewhere(body: Any) -> None:
    found = outcome(msgspec.json.encode(body))
    if isinstance(found, BadRequest):
        for fault in found.faults:
            assert leads_somewhere(body, fault.pointer), fault


@given(st.fixed_dictionaries({}, optional=GOOD))
def test_good_requests_are_taken_as_they_are(good: dict[str, Any]) -> None:
    found = outcome(msgspec.json.encode(ROOT | good))
    assert isinstance(found, Request)
    assert (found.id, found.actor, found.priority) == (
        good.get("id", ""),
        good.get("actor", ""),
        good.get("priority", 0),
    )
    assert found.jobs[0].env == good.get("env", {})


def _ecma_pattern(_: object, pattern: str, value: object, __: object) -> Any:
    """Python's `$` also matches before a last newline, that of JSON Schema does not."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


SCHEMA = extend(Draft202012Validator, {"pattern": _ecma_pattern})(msgspec.json.schema(RunRequest))  # type: ignore[no-untyped-call]


@given(MIXED)
def test_the_validator_agrees_with_the_json_schema(body: dict[str, Any]) -> None:
    """Apart from steps, which the workflow language reads, and rules that no schema says (keys, URLs, pauses)."""
    body = {key: value for key, value in body.items() if key != "steps"}
    faults = Faults()
    sound = check_struct(body, RunRequest, faults)
    assert bool(faults) != SCHEMA.is_valid(body)
    if not faults:
        assert msgspec.convert(sound, RunRequest) == msgspec.convert(body, RunRequest, strict=False)


STEP_BODIES = st.dictionaries(
    st.sampled_from(["run", "name", "id", "env", "shell", "timeout-minutes", "x", "uses", "with"]), VALUES
)


@given(st.lists(STEP_BODIES | st.just({"run": "x"}), max_size=3) | VALUES)
def test_steps_that_are_taken_are_valid_by_the_json_schema(steps: Any) -> None:
    if isinstance(outcome(msgspec.json.encode(ROOT | {"steps": steps})), Request):
        assert SCHEMA.is_valid(ROOT | {"steps": steps})


def _body(**fields: Any) -> bytes:
    return msgspec.json.encode(ROOT | fields)


NASTY = {
    "arrays": b"[" * 500_000,
    "objects": b'{"a":' * 100_000,
    "closed": b"[" * 250_000 + b"]" * 250_000,
    "flat": b"[" + b"[]," * 170_000 + b"[]]",
    "quotes": b'{"a":"' + b'\\"' * 250_000,
    "backslashes": b'{"a":"' + b"\\" * 500_001,
    "brackets in quotes": b'{"a":"' + b'[{\\"' * 120_000,
    "big number": b'{"priority":' + b"9" * 500_000 + b"}",
    "unknown fields": msgspec.json.encode({f"x{n}": n for n in range(40_000)}),
    "steps": _body(steps=[1] * 150_000),
    "two hundred bad steps": _body(steps=[{"run": "x" * 2000, "if": "y" * 300}] * 200),
    "pauses": _body(ssh={"pause": ["x"] * 100_000}),
    "environment": _body(env={f"A=B{n}": 1 for n in range(30_000)}),
    "long names": _body(env={"x" * 2000 + str(n): "" for n in range(200)}),
    "keys": _body(ssh={"keys": ["ssh-ed25519 " + "A" * 8000] * 20}),
    "workflow": _body(workflow="- " * 120_000),
    "512 KiB": _body(id="x" * 524_000),
    "1 MiB": b" " * 1024 * 1024,
}


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY.keys())
def test_nasty_requests_are_refused_in_time(data: bytes) -> None:
    begun = time.process_time()  # what other processes take is not ours
    assert isinstance(outcome(data), BadRequest)
    assert time.process_time() - begun < SECONDS
