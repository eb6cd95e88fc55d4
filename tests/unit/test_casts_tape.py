"""A recording holds what the terminal showed, in order, without a value of a secret, however the bytes came."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pitstop_cli.recorded import asciicast
from pitstop_common.limits import CAST_CHUNK, MAX_CAST, MAX_CAST_WAITING, MAX_JOB_CASTS
from pitstop_common.messages import CastChunk
from pitstop_sandbox.casts.tape import Tape
from pitstop_sandbox.steps.masks import Masks

SECRET = "s3cr3t-ödön-0123456789"
HEAD = CastChunk(job="aaaaaaaaaaaa-1", attempt=1, recording="r-1", index=-1, user="ada", session="s", started=1000.0,
                 columns=80, rows=24)  # fmt: skip
PIECES = st.lists(st.sampled_from([SECRET, "s3cr3t", "ö", "日本", "\r\n$ ", "x", "\x1b[31m"]), max_size=30)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({at % (len(data) + 1) for at in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def drained(tape: Tape, masks: Masks) -> list[CastChunk]:
    found = []
    while tape.due and (chunk := tape.take(masks, MAX_JOB_CASTS)) is not None:
        found.append(chunk)
    return found


def shown(chunks: list[CastChunk]) -> str:
    return "".join(event.data for chunk in chunks for event in chunk.events if event.code == "o")


@given(PIECES, st.lists(st.integers(0, 10**4), max_size=40), st.lists(st.integers(0, 5), max_size=40))
def test_no_value_is_kept_in_whole_or_in_part_and_all_else_is_kept_in_order(
    pieces: list[str], cuts: list[int], flushes: list[int]
) -> None:
    text = "".join(pieces)
    masks, tape, chunks = Masks([SECRET]), Tape(HEAD), []
    for number, data in enumerate(cut(text.encode(), cuts)):
        tape.output(data, 1001.0 + number)
        if number < len(flushes) and flushes[number] == 0:
            chunks += drained(tape, masks)
    tape.ended = True
    chunks += drained(tape, masks)
    assert shown(chunks) == masks.hide(text)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert chunks[-1].ended and not any(chunk.ended for chunk in chunks[:-1])
    times = [event.at for chunk in chunks for event in chunk.events]
    assert times == sorted(times)
    assert chunks[-1].size == len(shown(chunks).encode())


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=20))
def test_any_bytes_are_text_in_the_end(data: bytes, cuts: list[int]) -> None:
    tape, chunks = Tape(HEAD), []
    for piece in cut(data, cuts):
        tape.output(piece, 1000.0)
        chunks += drained(tape, Masks())
    tape.ended = True
    chunks += drained(tape, Masks())
    shown(chunks).encode()
    assert shown(chunks).replace("\ufffd", "") == data.decode("utf-8", "ignore").replace("\ufffd", "")


@given(PIECES, st.lists(st.integers(0, 10**4), max_size=30), st.data())
def test_who_goes_on_from_any_piece_makes_the_same_recording(
    pieces: list[str], cuts: list[int], data: st.DataObject
) -> None:
    """Killed after any piece: what the scrollback has behind `reached` is shown again."""
    whole = "".join(pieces).encode()
    masks, tape, chunks = Masks([SECRET]), Tape(HEAD), []
    written = 0
    for piece in cut(whole, cuts):
        tape.output(piece, 1001.0)
        written += len(piece)
        tape.reached = written
        chunks += drained(tape, masks)
        if data.draw(st.booleans()):
            tape = Tape(chunks[-1] if chunks else HEAD)
            tape.output(whole[tape.reached : written], 1002.0)
            tape.reached = written
    tape.ended = True
    assert shown([*chunks, *drained(tape, masks)]) == masks.hide(whole.decode())


def test_it_is_cut_when_it_is_too_long_and_says_so() -> None:
    tape, chunks = Tape(HEAD), []
    for number in range(20 * MAX_CAST // MAX_CAST_WAITING):
        tape.output(b"y" * (MAX_CAST_WAITING // 10), 1001.0 + number)
        chunks += drained(tape, Masks())
    tape.ended = True
    chunks += drained(tape, Masks())
    assert chunks[-1].cut and chunks[-1].ended and chunks[-1].size <= MAX_CAST + 100
    assert shown(chunks).endswith("the recording ends here: it has become too long\r\n")
    assert all(len(shown([chunk])) <= CAST_CHUNK + 100 for chunk in chunks)


def test_what_cannot_be_stored_in_time_is_missing_and_its_size_is_told() -> None:
    tape = Tape(HEAD)
    for _ in range(3 * MAX_CAST_WAITING // 1000):
        tape.output(b"z" * 1000, 1001.0)
    chunks = drained(tape, Masks())
    missing = int(shown(chunks).split("] ")[1].split()[0])
    assert missing + shown(chunks).count("z") == 3 * MAX_CAST_WAITING // 1000 * 1000
    assert missing > MAX_CAST_WAITING


def test_a_file_that_asciinema_knows_with_the_sizes_of_the_window() -> None:
    tape = Tape(HEAD)
    tape.resized(120, 40, 1000.5)
    tape.output("hé\n".encode(), 1001.25)
    chunks = [_plain(chunk) for chunk in drained(tape, Masks())]
    lines = [json.loads(line) for line in asciicast([*chunks, *chunks])]
    assert (lines[0]["version"], lines[0]["width"], lines[0]["height"], lines[0]["timestamp"]) == (2, 80, 24, 1000)
    assert lines[1:] == [[0.5, "r", "120x40"], [1.25, "o", "hé\n"]]


def _plain(chunk: CastChunk) -> dict[str, Any]:
    events = [[event.at, event.code, event.data] for event in chunk.events]
    names = ("index", "job", "user", "title", "started", "columns", "rows", "seconds")
    return {**{name: getattr(chunk, name) for name in names}, "events": events}
