"""Masks: no line of a value and no base64 of it is left in a log, however the bytes arrive, whatever is around."""

from __future__ import annotations

import base64
import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MAX_LOG_LINE, MIN_MASKED
from pitstop_sandbox.steps.lines import Lines
from pitstop_sandbox.steps.masks import Masks, forms

LETTERS = st.characters(codec="utf-8", exclude_characters="*\n\r\x00", exclude_categories=["Cs"])
LINE = st.text(LETTERS, min_size=5, max_size=90).filter(str.strip)
VALUES = st.lists(LINE, min_size=1, max_size=4).map("\n".join)
NOISE = st.binary(max_size=30).map(lambda data: data.replace(b"*", b"+").replace(b"\n", b" ").replace(b"::", b" "))


def lines_of(data: bytes, cuts: list[int], *masks: str) -> list[str]:
    lines = Lines(Masks(masks))
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = [line for start, end in itertools.pairwise(bounds) for line in lines.feed(data[start:end])]
    return out + lines.finish()


@given(VALUES, NOISE, NOISE, st.lists(st.integers(0), max_size=8))
def test_no_line_of_a_value_is_shown(value: str, before: bytes, after: bytes, cuts: list[int]) -> None:
    data = before + value.encode() + after + b"\n"
    shown = "\n".join(lines_of(data, cuts, value))
    for line in value.split("\n"):
        assert Masks([value]).apply(line.encode()) == b"***"
        assert line not in shown or line in (before + b" " + after).decode("utf-8", "replace")


@given(VALUES, st.binary(max_size=8), st.binary(max_size=8), st.booleans())
def test_its_base64_is_hidden_inside_any_other(value: str, before: bytes, after: bytes, url: bool) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    raw = value.encode()
    text = encode(before + raw + after)
    shown = Masks([value]).apply(text)
    assert b"***" in shown
    # What is left is the base64 of what stood around, and at most a character at each end that both share.
    first, last = shown.split(b"***", 1)[0], shown.rsplit(b"***", 1)[-1]
    assert len(first) <= -(-len(before) * 8 // 6) and len(last) <= -(-len(after) * 8 // 6) + 4


@given(VALUES, st.sampled_from([64, 76]), st.booleans())
def test_its_wrapped_base64_is_hidden(value: str, width: int, newline: bool) -> None:
    encoded = base64.b64encode((value + "\n" * newline).encode())
    text = b"\n".join(encoded[at : at + width] for at in range(0, len(encoded), width)) + b"\n"
    shown = "".join(lines_of(text, [], value)).replace("***", "")
    assert len(shown) < 8, shown


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
def test_masking_does_not_depend_on_the_chunks(values: list[str], data: st.DataObject) -> None:
    pieces = st.sampled_from([*(value.encode() for value in values), b"x" * (MAX_LOG_LINE - 7), b"\n", b"abc", b"\r"])
    text = b"".join(data.draw(st.lists(pieces, max_size=6)))
    cuts = data.draw(st.lists(st.integers(0), max_size=8))
    shown = lines_of(text, cuts, *values)
    assert shown == lines_of(text, [], *values)
    assert all(line not in "".join(shown) for value in values for line in value.split("\n") if len(line) > 12)


@given(
    LINE.filter(lambda line: "\x01" not in line),
    st.booleans(),
    st.integers(0, 130),
    st.lists(st.integers(0), max_size=4),
)
def test_no_value_is_cut_apart_where_a_long_line_is(line: str, encoded: bool, near: int, cuts: list[int]) -> None:
    form = base64.b64encode(line.encode()) if encoded else line.encode()
    before = b"\x01" * (MAX_LOG_LINE - near)
    shown = lines_of(before + form + b"\x01" * MAX_LOG_LINE, cuts, line)
    assert "".join(shown).strip("\x01") == "***"


@given(st.sets(st.binary(min_size=1, max_size=6), min_size=1, max_size=12), st.binary(max_size=60))
def test_the_longest_form_is_found_at_each_place(wanted: set[bytes], data: bytes) -> None:
    masks = Masks()
    masks._forms = {form for form in wanted if form.strip()} or {b"x"}
    at, expected = 0, b""
    while at < len(data):
        found = max((form for form in masks._forms if data.startswith(form, at)), key=len, default=b"")
        expected += b"***" if found else data[at : at + 1]
        at += len(found) or 1
    assert masks.apply(data) == expected


def test_short_lines_of_a_longer_value_stay_readable() -> None:
    value = '{\n "k": "long enough"\n}'
    assert lines_of(b'{\n} done\n "k": "long enough"\n', [], value) == ["{", "} done", "***"]
    assert all(len(form) >= MIN_MASKED for form in forms(value))


def test_many_values_cost_little() -> None:
    """A plain list of alternatives would be tried one by one at each byte: minutes."""
    masks = Masks("\n".join(f"secret {number:05d} of {value}" for number in range(20)) for value in range(20))
    text = b"building target foo/bar/baz.o and linking it with -lm 0x1234\n" * 4000
    masks.apply(b"compiled")
    begun = time.process_time()
    assert masks.apply(text) == text
    assert time.process_time() - begun < 10
