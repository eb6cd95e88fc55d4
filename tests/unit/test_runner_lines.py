"""Raw output into log lines: the same lines however the bytes arrive, and no masked value in any of them."""

from __future__ import annotations

import base64
import itertools

from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MAX_LINE_SHOWN, MAX_LOG_LINE
from pitstop_sandbox.steps.lines import Lines
from pitstop_sandbox.steps.masks import Masks

SECRET = "hunter2-\u00fcber-secret"


def lines_of(data: bytes, *cuts: int, masks: tuple[str, ...] = ()) -> list[str]:
    lines = Lines(Masks(masks))
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out = [line for start, end in itertools.pairwise(bounds) for line in lines.feed(data[start:end])]
    return out + lines.finish()


@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b"::add-mask::zebra\n", b"zebra", b"\xc3\xbc", b"x" * 9000, b"::"])),
    st.lists(st.integers(0, 40_000), max_size=6),
)
def test_lines_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    assert lines_of(data, *cuts) == lines_of(data)


@given(st.integers(0, MAX_LOG_LINE + 40), st.integers(0, MAX_LOG_LINE * 2))
def test_a_value_is_masked_wherever_a_long_line_is_cut(before: int, cut: int) -> None:
    data = b"x" * before + SECRET.encode() + b"y" * MAX_LOG_LINE
    out = lines_of(data, cut, masks=(SECRET,))
    assert "".join(out) == "x" * before + "***" + "y" * MAX_LOG_LINE
    assert all(len(line.encode()) <= MAX_LOG_LINE for line in out)


def test_a_character_is_not_cut_apart() -> None:
    out = lines_of(("\u20ac" * MAX_LOG_LINE).encode())
    assert "".join(out) == "\u20ac" * MAX_LOG_LINE


def test_carriage_returns_end_up_as_in_a_terminal() -> None:
    assert lines_of(b"10%\r50%\r100%\nplain\r\n\r\n") == ["100%", "plain", ""]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert lines_of(b"a\xffb\n") == ["a\ufffdb"]


def test_each_line_of_a_value_and_its_base64_is_hidden() -> None:
    value = "first line\nsecond line"
    encoded = base64.b64encode(value.encode()).decode()
    wrapped = base64.encodebytes((value * 9).encode()).decode()
    text = f"first line\n> second line <\n{encoded}\n{base64.b64encode(b'second line').decode()}\n{wrapped}"
    out = lines_of(text.encode(), masks=(value, value * 9))
    assert out[:4] == ["***", "> *** <", "***", "***"]
    assert not any(part in "".join(out) for part in wrapped.split())


def test_add_mask_hides_later_lines_and_itself() -> None:
    out = lines_of(b"before zebra\n::add-mask::zebra\nafter zebra\n")
    assert out == ["before zebra", "after ***"]


def test_an_overlong_add_mask_shows_nothing_of_its_value() -> None:
    value = "k" * (MAX_LOG_LINE * 2)
    assert lines_of(f"::add-mask::{value}\nnext\n".encode()) == ["next"]


def test_stop_commands_stops_commands() -> None:
    out = lines_of(b"::stop-commands::tok\n::add-mask::zebra\n::tok::\nzebra\n::add-mask::zebra\nzebra\n")
    assert out == ["::stop-commands::tok", "::add-mask::zebra", "::tok::", "zebra", "***"]


def test_groups_and_errors_stay_and_old_commands_warn() -> None:
    out = lines_of(b"::group::a\n::error file=x,line=1::boom\n::set-output name=a::b\n::endgroup::\n")
    assert out[0] == "::group::a"
    assert out[1] == "::error file=x,line=1::boom"
    assert "GITHUB_OUTPUT" in out[2]
    assert out[3] == "::endgroup::"


def test_the_tail_keeps_the_last_lines_only() -> None:
    lines = Lines(Masks())
    lines.feed(b"".join(b"%d\n" % number for number in range(100)))
    assert list(lines.tail) == [str(number) for number in range(85, 100)]


def test_a_line_without_end_is_cut_at_a_limit_and_its_length_is_told() -> None:
    out = lines_of(b"m" * 1_000_000 + b"\nnext\n")
    assert sum(map(len, out[:-2])) == MAX_LINE_SHOWN
    assert out[-2:] == ["[pitstop: this line is 1000000 bytes long; what follows 262144 is not shown]", "next"]


def test_a_line_that_ends_within_the_limit_is_whole() -> None:
    assert "".join(lines_of(b"m" * MAX_LINE_SHOWN + b"\n")) == "m" * MAX_LINE_SHOWN


def test_a_command_in_the_middle_of_a_line_is_text() -> None:
    out = lines_of(b"see ::add-mask::zebra\nzebra\n  ::add-mask::gnu\ngnu\n")
    assert out == ["see ::add-mask::zebra", "zebra", "***"]
