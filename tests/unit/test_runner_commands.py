"""GITHUB_ENV and GITHUB_PATH as hostile code writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MAX_ENV_VALUE_CHARS, MAX_ENV_VARS
from pitstop_sandbox.steps.commands import command, merge, parse_env, parse_path


def test_both_forms_of_a_variable() -> None:
    found, warnings = parse_env(b"A=1\nB<<END\ntwo\nlines = here\nEND\nC=x<<y\nD=\n")
    assert found == {"A": "1", "B": "two\nlines = here", "C": "x<<y", "D": ""}
    assert warnings == []


def test_the_last_value_of_a_name_holds() -> None:
    assert parse_env(b"A=1\nA=2\r\n")[0] == {"A": "2"}


@pytest.mark.parametrize(
    "bad",
    [
        b"no sign",
        b"=value",
        b"GITHUB_TOKEN=x",
        b"PITSTOP_RUN=x",
        b"A=\0",
        b"A<<END\nnever ended",
        b"A=" + b"x" * (MAX_ENV_VALUE_CHARS + 1),
        b" A=1",
    ],
)
def test_what_is_wrong_is_told_and_the_rest_holds(bad: bytes) -> None:
    found, warnings = parse_env(b"GOOD=1\n" + bad + b"\n")
    assert found == {"GOOD": "1"}
    assert len(warnings) == 1


def test_too_many_variables_and_warnings_are_bounded() -> None:
    data = b"".join(b"V%d=1\n" % number for number in range(MAX_ENV_VARS + 50))
    exports, warnings = merge(parse_env(data), parse_path(b""))
    assert len(exports.env) == MAX_ENV_VARS
    assert len(warnings) == 11
    assert warnings[-1] == "and 40 more warnings like these"


def test_path_keeps_the_order_written_and_refuses_separators() -> None:
    found, warnings = parse_path(b"/a\n\n/b\n/a\n/c:/d\n")
    assert found == ("/a", "/b")
    assert len(warnings) == 1


@given(st.binary(max_size=400))
def test_nothing_makes_the_parsers_fail(data: bytes) -> None:
    exports, _ = merge(parse_env(data), parse_path(data))
    assert all("\0" not in name + value for name, value in exports.env.items())


def test_a_command_carries_its_data_unescaped() -> None:
    found = command("  ::error file=a.py,line=1,title=x: y::50%25%0Adone")
    assert found is not None
    assert (found.name, found.data) == ("error", "50%\ndone")
    assert command("std::vector<int>::iterator") is None
