"""What is kept of a shell that nobody is with, and what its terminal is sent when somebody comes back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.channels.replay import MOST, replay
from pitstop_sandbox.holder import scrollback
from pitstop_sandbox.holder.scrollback import Scrollback

PIECES = st.lists(st.binary(max_size=40), max_size=60)


@given(first=PIECES, second=PIECES)
def test_the_last_bytes_are_kept_whoever_wrote_them(first: list[bytes], second: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrollback, "SIZE", 64)
        path = Path(folder, "kept")
        for pieces in (first, second):  # the host process, and the holder after it
            writer = Scrollback(path)
            for piece in pieces:
                writer.append(piece)
            writer.close()
        reader = Scrollback(path)
        assert reader.read() == b"".join(first + second)[-64:]
        assert path.stat().st_size <= 128
        whole = b"".join(first + second)
        assert reader.position == len(whole)
        for back in (0, 1, 17, 64):
            if back <= len(whole):
                assert reader.since(len(whole) - back) == whole[len(whole) - back :]
        reader.close()


def test_a_reader_that_was_there_before_sees_what_another_adds(tmp_path: Path) -> None:
    one, other = Scrollback(tmp_path / "kept"), Scrollback(tmp_path / "kept")
    other.append(b"more")
    assert one.read() == b"more"
    one.close()
    other.close()


@pytest.mark.parametrize(
    "question",
    [b"\x1b[6n", b"\x1b[?6n", b"\x1b[c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[?2026$p", b"\x1b[>q", b"\x1b[14t", b"\x1b[18t",
     b"\x1b]10;?\x07", b"\x1b]4;1;?\x1b\\", b"\x1b]52;c;?\x07", b"\x1b]52;c;aGk=\x07", b"\x1bP+q544e\x1b\\", b"\x05",
     b"\x1bZ", b"\x1b[?u"],
)  # fmt: skip
def test_no_question_is_asked_again(question: bytes) -> None:
    shown = replay(b"one" + question + b"two\x1b[1;31mred\x1b[0m", alternate=False)
    assert shown.endswith(b"onetwo\x1b[1;31mred\x1b[0m")


def test_a_long_scrollback_is_cut_at_a_line() -> None:
    lines = b"".join(b"line %d\r\n" % number for number in range(100_000))
    shown = replay(lines, alternate=False)
    kept = shown[shown.index(b"line ") :]
    assert lines.endswith(kept) and MOST - 20 < len(kept) <= MOST


def test_a_full_screen_program_gets_an_empty_screen_to_draw_on() -> None:
    shown = replay(b"old text\x1b[?1049hdrawn", alternate=True)
    assert b"old" not in shown and b"drawn" not in shown and shown.endswith(b"\x1b[?1049h\x1b[2J\x1b[H")
