"""Terminals that were recorded in a run: a list of them, and each in pieces."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec
from nats.micro.request import Request as MicroRequest

from pitstop_common import subjects
from pitstop_common.api_recordings import (
    RecordingList,
    RecordingReply,
    RecordingRequest,
    RecordingsRequest,
    RecordingView,
)
from pitstop_common.batch import read_batch
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound
from pitstop_common.ids import run_of_job
from pitstop_common.messages import CastChunk
from pitstop_common.pull import read_all, rfc3339
from pitstop_common.streams import CASTS, FACTS_DAYS
from pitstop_scheduler.calls import Caller, checked

_MOST: Final = 64
_MOST_BYTES: Final = 512 * 1024
_decode: Final = msgspec.json.Decoder(CastChunk).decode


class Recorded:
    """The verbs `recordings` and `recording`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self, caller: Caller, asked: MicroRequest) -> RecordingList:
        """Raises Unavailable."""
        wanted = checked(asked, RecordingsRequest)
        run = run_of_job(wanted.run)
        subject = subjects.cast(caller.org, run, wanted.run if wanted.run != run else "*", "*")
        found = []
        for newest in await read_all(self._bus, CASTS, subject, last_per_subject=True):
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(_decode(newest.data))
        found.sort(key=lambda chunk: (chunk.started, chunk.job, chunk.recording))
        return RecordingList(recordings=tuple(map(_view, found)))

    async def read(self, caller: Caller, asked: MicroRequest) -> RecordingReply:
        """What is stored behind `after`. Raises NotFound, Unavailable."""
        wanted = checked(asked, RecordingRequest)
        subject = subjects.cast(caller.org, run_of_job(wanted.run), wanted.run, wanted.recording)
        batch = await read_batch(self._bus, CASTS, subject, after=wanted.after, most=_MOST, most_bytes=_MOST_BYTES)
        if not batch.messages and not wanted.after:
            raise NotFound(
                f"there is no recording {wanted.recording} of job {wanted.run} (they are kept for {FACTS_DAYS} days); "
                f"`pitstop recordings ls {wanted.run}` shows those there are"
            )
        chunks, after = [], wanted.after
        for message in batch.messages:
            after = message.seq
            with contextlib.suppress(msgspec.MsgspecError):
                chunks.append(_decode(message.data))
        return RecordingReply(chunks=tuple(chunks), after=after, pending=batch.pending)


def _view(chunk: CastChunk) -> RecordingView:
    return RecordingView(
        recording=chunk.recording, job=chunk.job, attempt=chunk.attempt, user=chunk.user, session=chunk.session,
        started=rfc3339(chunk.started), title=chunk.title, seconds=chunk.seconds, size=chunk.size, ended=chunk.ended,
        cut=chunk.cut,
    )  # fmt: skip
