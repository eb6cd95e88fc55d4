"""A warning must be read, and must not spoil a full-screen program's screen for good. Row D7."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.channels.screen import Screen, warning


@given(cut=st.integers(0, 20), before=st.binary(max_size=20).filter(lambda data: b"\x1b" not in data))
def test_a_switch_is_seen_wherever_its_output_is_cut(cut: int, before: bytes) -> None:
    screen = Screen()
    data = before + b"\x1b[?1049h"
    screen.shown(data[:cut])
    screen.shown(data[cut:])
    assert screen.alternate
    screen.shown(b"text\x1b[?1049l$ ")
    assert not screen.alternate


def test_in_a_full_screen_program_the_cursor_comes_back_to_where_it_was() -> None:
    shown = warning("this session ends in 2 min", 24, alternate=True)
    assert shown.startswith(b"\x1b7\x1b[24;1H") and shown.endswith(b"\x1b8") and b"\n" not in shown


def test_in_a_shell_it_has_a_row_of_its_own() -> None:
    shown = warning("this session ends in 2 min", 24, alternate=False)
    assert shown.startswith(b"\r\n") and shown.endswith(b"\r\n") and b"this session ends in 2 min" in shown
