"""Frames of a holder's socket: whatever the pieces they come in, and whatever is no frame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.holder.frames import LENGTH, MAX_FRAME, Decoder, FrameError, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda deeper: st.lists(deeper, max_size=3)
)
messages = st.dictionaries(st.text(max_size=8), values, max_size=4)


@given(st.lists(messages, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_whole_and_in_order_however_they_are_cut(sent: list[dict[str, Any]], cuts: list[int]) -> None:
    data, decoder, got, turn = b"".join(encode(each) for each in sent), Decoder(), [], 0
    while data:
        size = cuts[turn % len(cuts)]
        got += decoder.feed(data[:size])
        data, turn = data[size:], turn + 1
    assert got == sent


def test_text_that_is_not_utf8_survives() -> None:
    odd = b"\xff\xfe".decode(errors="surrogateescape")
    assert Decoder().feed(encode({"env": odd})) == [{"env": odd}]


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"\xff", b""])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Decoder().feed(LENGTH.pack(len(body)) + body)


def test_a_length_over_the_limit_is_refused_before_its_body_is_waited_for() -> None:
    with pytest.raises(FrameError):
        Decoder().feed(LENGTH.pack(MAX_FRAME + 1))


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(FrameError):
        encode({"text": "x" * MAX_FRAME})
