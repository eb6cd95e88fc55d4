"""The bodies of the API verbs `recordings` and `recording`: terminals that a project has recorded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pitstop_common.limits import TOKEN
from pitstop_common.messages.casts import CastChunk

RecordingId = Annotated[str, Meta(pattern=f"^{TOKEN.pattern.removesuffix(chr(92) + 'Z')}$")]


class RecordingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run by its id, or one job of it by the job's."""

    run: str


class RecordingView(msgspec.Struct, frozen=True, kw_only=True):
    """A recording. `started`: RFC 3339. `title`: the command; empty: a shell. `seconds` and `size` (bytes of output) so
    far; `ended` false: it goes on, or its host is gone. `cut`: it became too long, and its end is missing."""

    recording: str
    job: str
    attempt: int
    user: str
    session: str
    started: str
    title: str
    seconds: float
    size: int
    ended: bool
    cut: bool


class RecordingList(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first."""

    recordings: tuple[RecordingView, ...]


class RecordingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One recording of a job. `run`: the job's id. `after`: the number that the answer before ended with."""

    run: str
    recording: RecordingId
    after: Annotated[int, Meta(ge=0)] = 0


class RecordingReply(msgspec.Struct, frozen=True, kw_only=True):
    """Pieces in the order in which they were stored. `after`: for the next request; `pending`: so many are behind."""

    chunks: tuple[CastChunk, ...]
    after: int
    pending: int
