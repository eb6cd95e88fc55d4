"""The output of a run, in batches: people have no rights on the streams, which hold every org's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
from nats.aio.msg import Msg
from nats.micro.request import Request as MicroRequest

from pitstop_common import subjects
from pitstop_common.batch import Batch, read_batch
from pitstop_common.bus import Bus
from pitstop_common.ids import run_of_job
from pitstop_common.messages import decode_chunk
from pitstop_common.passes import LogsReply, LogsRequest
from pitstop_common.streams import LOGS
from pitstop_scheduler.calls import Caller, checked

_MOST: Final = 256
_MOST_BYTES: Final = 512 * 1024
"""Of one answer: a NATS message is 1 MiB at the most."""


class Output:
    """The verb `logs`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self, caller: Caller, asked: MicroRequest) -> LogsReply:
        """What is stored behind `after`; where nothing is, what comes within `wait` seconds. Raises Unavailable."""
        wanted = checked(asked, LogsRequest)
        subject = subjects.logs(caller.org, run_of_job(wanted.run), wanted.job or "*")
        if not wanted.wait:
            return _reply(await self._batch(subject, wanted.after), wanted.after)
        came = asyncio.Event()

        async def hear(_: Msg) -> None:
            came.set()

        heard = await self._bus.subscribe(subject, hear)  # before reading: nothing can come in between unheard
        try:
            batch = await self._batch(subject, wanted.after)
            if not batch.messages:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wanted.wait):
                        await came.wait()
                batch = await self._batch(subject, wanted.after)
        finally:
            await heard.unsubscribe()
        return _reply(batch, wanted.after)

    async def _batch(self, subject: str, after: int) -> Batch:
        return await read_batch(self._bus, LOGS, subject, after=after, most=_MOST, most_bytes=_MOST_BYTES)


def _reply(batch: Batch, after: int) -> LogsReply:
    chunks = []
    for message in batch.messages:
        after = message.seq
        with contextlib.suppress(msgspec.MsgspecError):
            chunks.append(decode_chunk(message.data))
    return LogsReply(chunks=tuple(chunks), after=after, pending=batch.pending)
