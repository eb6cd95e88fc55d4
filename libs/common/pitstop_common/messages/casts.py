"""Recordings of terminals (stream CASTS)."""

from __future__ import annotations

from typing import Literal

import msgspec


class CastEvent(msgspec.Struct, frozen=True, array_like=True):
    """As a line of an asciicast v2: seconds from the recording's start; o: output, r: the terminal's new size; its
    text."""

    at: float
    code: Literal["o", "r"]
    data: str


class CastChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the recording of one terminal, masked, in order: `index` counts them from 0. `started`: seconds since
    the epoch. `columns`, `rows`: at the start. `title`: the command, or empty for a shell. `seconds` and `size` (bytes
    of output) so far. `cut`: it has become too long, and what came then is missing. `ended`: this is the last piece.
    `reached`: how far the shell's scrollback was recorded; of the host only."""

    job: str
    attempt: int
    recording: str
    index: int
    user: str
    session: str
    started: float
    columns: int
    rows: int
    title: str = ""
    events: tuple[CastEvent, ...] = ()
    seconds: float = 0
    size: int = 0
    cut: bool = False
    ended: bool = False
    reached: int = 0
