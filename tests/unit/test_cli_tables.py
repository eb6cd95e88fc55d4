"""Who holds which slot and who waits, as a page."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pitstop_cli.tables import columns, screen, top_lines

NOW = 1_790_000_000.0


def answer(**more: Any) -> dict[str, Any]:
    job = {
        "job": "r-1",
        "run": "r",
        "project": "web",
        "key": "build",
        "status": "paused",
        "slot_since": NOW - 600,
        "sessions": 1,
        "active": NOW - 65,
        "paused_at": NOW - 500,
        "deadline": NOW + 900,
        "deadline_reason": "idle",
    }
    waits = {"job": "s-1", "run": "s", "project": "web", "key": "te\x1bst", "actor": "bob", "priority": 0,
             "queued": NOW - 60, "position": 1, "reason": "the only slot of org acme is in use"}  # fmt: skip
    return {"runs": [{"run": "r", "actor": "ada"}], "jobs": [job], "queue": [waits], "waiting": 1, "now": NOW,
            "slots": {"limit": 1, "used": 1, "debug": 1}, **more}  # fmt: skip


def at(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(seconds))


def test_the_page_names_holders_and_who_waits_and_why() -> None:
    lines = top_lines(answer(), "acme")
    assert lines[0] == "1 of 1 slots of acme in use, 1 of them for sessions; 1 job waits"
    cells = [cell.strip() for cell in lines[3].split("  ") if cell.strip()]
    assert cells == [
        "r-1", "web", "build", "ada", "paused", at(NOW - 600), "1", "1 min 5 s", f"{at(NOW + 900)} (idle)",
    ]  # fmt: skip
    assert lines[5].split() == ["PLACE", "JOB", "PROJECT", "KEY", "BY", "SINCE", "WHY", "IT", "WAITS"]
    assert lines[6].split()[:6] == ["1", "s-1", "web", "te?st", "bob", at(NOW - 60)]
    assert lines[6].endswith("the only slot of org acme is in use")
    assert top_lines(answer(waiting=70), "acme")[-1] == "and 69 more"
    empty = top_lines(answer(queue=[], waiting=0, jobs=[], runs=[]), "acme")
    assert empty[0].endswith("; no job waits") and len(empty) == 3


@given(st.lists(st.text("abc €", max_size=30), max_size=30), st.integers(1, 40), st.integers(1, 30))
def test_a_screen_is_never_larger_than_its_terminal(lines: list[str], width: int, height: int) -> None:
    shown = screen(lines, width, height)
    assert len(shown) == min(len(lines), height) and all(len(line) <= width for line in shown)
    if len(lines) > height:
        assert f"… {len(lines) - height + 1} more lines".startswith(shown[-1])


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    assert columns(("A", "LONG"), [("xxx", "1"), ("y", "")]) == ["A    LONG", "xxx  1", "y"]
