"""Log chunks become lines: each line once and in order, whatever is delivered again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pitstop_cli.console import harmless, plain
from pitstop_cli.render import LogView, summaries
from pitstop_common.messages import LogChunk

ONE = {"r-1": "build"}


def chunk(first: int, *lines: str, step: int = 1, tries: int = 1, job: str = "r-1", kind: str = "output",
          attempt: int = 1) -> LogChunk:  # fmt: skip
    return LogChunk(job=job, attempt=attempt, step=step, tries=tries, name=f"s{step}", first=first, lines=lines,
                    kind=kind)  # type: ignore[arg-type]  # fmt: skip


def test_each_step_has_a_heading_and_each_try_its_own() -> None:
    view = LogView(ONE)
    assert view.feed(chunk(0, "a")) == ["── 1. s1", "a"]
    assert view.feed(chunk(1, "b")) == ["b"]
    assert view.feed(chunk(0, "a", tries=2)) == ["── 1. s1 (try 2)", "a"]
    assert view.feed(chunk(0, "c", step=2)) == ["── 2. s2", "c"]


def test_a_second_attempt_starts_anew() -> None:
    view = LogView(ONE)
    view.feed(chunk(0, "a"))
    assert view.feed(chunk(0, "a", attempt=2)) == ["── 1. s1", "a"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=12), st.randoms(use_true_random=False))
def test_no_line_is_shown_twice(cuts: list[tuple[int, int]], chance: random.Random) -> None:
    """Any pieces of one log, sent again and again: with a whole copy at the end, every line appears exactly once."""
    lines = [f"line {number}" for number in range(40)]
    view = LogView(ONE)
    shown: list[str] = []
    position = 0
    for start, length in cuts:
        first = min(start, position)  # a sender repeats, it never leaves a gap
        shown += view.feed(chunk(first, *lines[first : first + length]))
        position = max(position, min(first + length, 40))
    shown += view.feed(chunk(0, *lines))
    assert [line for line in shown if line.startswith("line")] == lines


def test_groups_are_headed_and_indented_and_commands_are_words() -> None:
    view = LogView(ONE)
    shown = view.feed(chunk(0, "::group::inside", "x", "::endgroup::", "y", "::error file=a.c,line=3,col=7::bad",
                            "::debug::hidden", "::warning::careful", "::unknown::kept"))  # fmt: skip
    assert shown[1:] == ["▸ inside", "  x", "y", "error: a.c:3:7: bad", "warning: careful", "::unknown::kept"]


def test_a_message_of_several_lines_is_shown_in_several_and_a_group_in_one() -> None:
    view = LogView(ONE)
    shown = view.feed(chunk(0, "::error::50%25 failed:%0A  a.c%0A  b.c", "::group::two%0Alines", "::warning::"))
    assert shown[1:] == ["error: 50% failed:", "         a.c", "         b.c", "▸ two lines", "warning: "]


def test_summaries_are_no_output_and_the_newest_try_counts() -> None:
    view = LogView(ONE)
    made = [
        chunk(0, "old", kind="summary"), chunk(0, "out"), chunk(0, "new", kind="summary", tries=2),
        chunk(0, "other", kind="summary", step=3), chunk(0, "old", kind="summary"),
        chunk(0, "r", kind="summary", job="r-10"),
    ]  # fmt: skip
    assert [view.feed(one) for one in made] == [[], ["── 1. s1", "out"], [], [], [], []]
    assert [one.lines for one in summaries(made)] == [("new",), ("other",), ("r",)]


def test_a_group_left_open_ends_with_its_step() -> None:
    view = LogView(ONE)
    view.feed(chunk(0, "::group::inside", "x"))
    assert view.feed(chunk(0, "y", step=2)) == ["── 2. s2", "y"]


def test_several_jobs_name_their_lines() -> None:
    view = LogView({"r-1": "build", "r-2": "lint"})
    assert view.feed(chunk(0, "a")) == ["build | ── 1. s1", "build | a"]
    assert view.feed(chunk(0, "b", job="r-2"))[1] == "lint  | b"


def test_notices_are_ours_and_the_end_says_nothing() -> None:
    view = LogView(ONE)
    assert view.feed(chunk(0, "hello", step=0, kind="notice")) == ["pitstop: hello"]
    assert view.feed(chunk(0, "hello", step=0, kind="notice")) == []
    assert view.feed(chunk(1, step=0, kind="end")) == []


def test_inside_github_actions_their_markers_are_used() -> None:
    view = LogView(ONE, github=True)
    assert view.feed(chunk(0, "::error::bad")) == ["::group::1. s1", "::error::bad"]
    assert view.feed(chunk(0, "x", step=2)) == ["::endgroup::", "::group::2. s2", "x"]


def test_a_terminal_is_not_steered_by_output() -> None:
    assert harmless("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"
    assert harmless("\x1b[31mred") == "\x1b[31mred\x1b[0m"
    assert harmless("\x1b]52;c;ZXZpbA==\x07ok\x1b[2J\ttab\r") == "]52;c;ZXZpbA==ok[2J\ttab"
    assert plain("a\nb\x1b[2Jc") == "a b?[2Jc"


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_only_colours_survive(text: str) -> None:
    import re

    left = re.sub(r"\x1b\[[0-9;:]*m", "", harmless(text))
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", left)
