"""Any text at all: a workflow or a WorkflowError, in bounded time, and every pointer leads somewhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pitstop_common.workflow import WorkflowError, compile_workflow

SECONDS = 3.0
"""Generous for a loaded machine; what these inputs do unbounded takes minutes, or all memory."""

WORDS = [
    "on", "jobs", "steps", "run", "name", "id", "env", "if", "uses", "with", "shell", "a", "needs", "runs-on", "ref",
    "timeout-minutes", "continue-on-error", "working-directory", "defaults", "actions/checkout@v4", "always()",
    "${{ x }}", "windows", "", "~", "x/y", "bash", "path",
]  # fmt: skip
NAMES = st.sampled_from(WORDS)
SCALARS = NAMES | st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none()
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
STEP = st.dictionaries(NAMES, TREES, max_size=4).flatmap(
    lambda step: st.sampled_from([step, step | {"run": "x"}, step | {"uses": "actions/checkout@v4"}])
)
JOB = st.dictionaries(NAMES, TREES, max_size=3).flatmap(
    lambda job: st.lists(STEP, max_size=3).map(lambda steps: job | {"steps": steps})
)
FILES = st.dictionaries(NAMES, TREES, max_size=2).flatmap(
    lambda file: st.dictionaries(st.sampled_from(["a", "b", "c/d"]), JOB | TREES, max_size=3).map(
        lambda jobs: file | {"jobs": jobs}
    )
)


def outcome(text: str) -> tuple[Any, ...]:
    try:
        return compile_workflow(text, run="k3vq7m2ab4xz", pool="default")
    except WorkflowError as error:
        assert error.faults and str(error)
        return error.faults


def resolves(document: Any, pointer: str) -> bool:
    value: Any = {"workflow": document}
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return False
    return True


@given(st.text())
@example("a: &a [*a]")
@example("\ufeff")
@example("%YAML 1.2\n---\n...")
def test_any_text(text: str) -> None:
    outcome(text)


@given(st.text(alphabet="ajobs: \n-{}[]&*!|>'\"#%?,${()}\t\\"))
def test_text_that_looks_like_yaml(text: str) -> None:
    outcome("jobs:\n  a:\n    steps:\n      - run: x\n" + text)
    outcome(text)


@given(FILES)
def test_any_tree_has_jobs_or_faults_whose_pointers_resolve(document: Any) -> None:
    text = yaml.safe_dump(document)
    for found in outcome(text):
        if hasattr(found, "pointer") and found.pointer:
            assert resolves(document, found.pointer), found
            assert 1 <= found.line <= text.count("\n") + 1
            assert found.column >= 1


ANY_LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0$"), max_size=40)
GOOD_STEP = st.fixed_dictionaries(
    {"run": ANY_LINES.filter(str.strip)},
    optional={
        "env": st.dictionaries(st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), ANY_LINES, max_size=3),
        "shell": st.sampled_from(["bash", "sh", "python", "pwsh", "perl -w {0}"]),
        "continue-on-error": st.booleans(),
        "timeout-minutes": st.integers(1, 600) | st.floats(0.1, 600),
        "if": st.sampled_from(["always()", "${{ failure() }}"]),
    },
)


@given(st.lists(GOOD_STEP, min_size=1, max_size=5), st.booleans())
def test_a_good_file_means_what_was_written(steps: list[dict[str, Any]], flow: bool) -> None:
    text = yaml.safe_dump({"jobs": {"a": {"steps": steps}}}, default_flow_style=flow)
    (job,) = compile_workflow(text, run="k3vq7m2ab4xz", pool="p")
    for n, (written, step) in enumerate(zip(steps, job.steps, strict=True), start=1):
        assert (step.index, step.run, step.env) == (n, written["run"], written.get("env", {}))
        assert (step.shell, step.continue_on_error) == (
            written.get("shell", ""),
            written.get("continue-on-error", False),
        )
        assert step.timeout == 60 * written.get("timeout-minutes", 0)
        assert step.condition in written.get("if", "success")
        assert step.name.isprintable() and len(step.name) <= 200


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
LONG_BOMB = (
    f"on: push\nenv: {{A: &a '{'x' * 100_000}'}}\njobs:\n"
    + "  j0: {steps: &s [" + ", ".join(["{run: *a}"] * 200) + "]}\n"
    + "".join(f"  j{n}: {{steps: *s}}\n" for n in range(1, 64))
)  # fmt: skip
NASTY = {
    "flow depth": "[" * 200_000,
    "mapping depth": "{a: " * 50_000,
    "block depth": "".join(" " * n + "a:\n" for n in range(700)),
    "dashes": "- " * 100_000,
    "alias bomb": BOMB,
    "long alias bomb": LONG_BOMB,
    "wide": "jobs:\n" + "".join(f"  k{n}: {{}}\n" for n in range(20_000)),
    "unknown keys": "".join(f"stepz{n}: 1\n" for n in range(20_000)),
    "same key": "a: 1\n" * 40_000,
    "quotes": "'" * 250_000,
    "anchors": "".join(f"- &a{n} x\n" for n in range(20_000)),
    "tags": "!a " * 80_000,
    "comments": "#\n" * 130_000,
    "expressions": "jobs: {a: {steps: [{run: '" + "${{ " * 60_000 + "'}]}}",
    "512 KiB": "x" * 512 * 1024,
    "number": "a: " + "9" * 200_000,
    "float": "jobs: {a: {timeout-minutes: 1" + "0" * 200_000 + ".0}}",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_nasty_texts_are_refused_in_time(text: str) -> None:
    begun = time.process_time()  # what other processes take is not ours
    found = outcome(text)
    assert time.process_time() - begun < SECONDS
    assert found and all(hasattr(fault, "pointer") for fault in found)
    assert sum(len(fault.message) + len(fault.pointer) for fault in found) < 100_000
