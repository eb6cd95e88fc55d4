"""Where a job's facts and log chunks go: JetStream, one message after the other, each until it is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from pitstop_common import subjects
from pitstop_common.acks import Refused
from pitstop_common.bus import Bus
from pitstop_common.messages import CastChunk, HostFact, LogChunk, Message, encode
from pitstop_common.telemetry import headers

log = logging.getLogger(__name__)

_AFTER_REFUSAL: Final = 1.0
_CHUNKS_IN_FLIGHT: Final = 256
"""Of all jobs together; 16 MiB at most."""


def type_of(message: Message) -> str:
    """`job.claimed` of a JobClaimed."""
    return str(message.__struct_config__.tag)


async def store(bus: Bus, message: Message, trace: str = "") -> None:
    """Store a fact; returns when it is. The same id again is harmless."""
    subject = subjects.about(type_of(message), message.org, message.run)
    await _store(bus, subject, encode(message), headers(message.id, trace))


async def store_for_all(bus: Bus, message: Message, partitions: int) -> None:
    """Store a fact about a whole host, for every partition of the log: each has jobs there."""
    for token in subjects.nobodies(partitions):
        subject = subjects.about(type_of(message), token, message.run)
        id = message.id if partitions == 1 else f"{message.id}.{token}"
        await _store(bus, subject, encode(message), headers(id, ""))


async def _store(bus: Bus, subject: str, data: bytes, named: dict[str, str]) -> None:
    """A stream that is full refuses, until somebody makes room; a job must not end for that."""
    while True:
        try:
            await bus.store_surely(subject, data, named)
            return
        except Refused as error:
            log.error("%s: %s; trying again", subject, error)
            await asyncio.sleep(_AFTER_REFUSAL)


class NatsFacts:
    """The FactSink of one job. In order: a fact is sent when the one before it is stored."""

    def __init__(
        self, bus: Bus, *, host: str, incarnation: str, trace: str, seen: Callable[[HostFact], None] = lambda _: None
    ) -> None:
        """`seen` hears of each fact when it is stored."""
        self._bus = bus
        self._host = host
        self._incarnation = incarnation
        self._trace = trace
        self._seen = seen
        self._turn = asyncio.Lock()

    async def publish(self, fact: HostFact) -> None:
        """As the port says. Host and incarnation are those of this process, whoever decided the fact."""
        fact = msgspec.structs.replace(fact, host=self._host, incarnation=self._incarnation)
        async with self._turn:
            await store(self._bus, fact, self._trace)
        self._seen(fact)


class LogRoom:
    """Bounds the chunks on their way, of all jobs of the host, and counts their lines."""

    def __init__(self, count: Callable[[int], None] = lambda _: None) -> None:
        self.slots = asyncio.Semaphore(_CHUNKS_IN_FLIGHT)
        self.count = count


class NatsLogs:
    """The LogSink of one job. Jobs do not wait for each other; the chunks of one job are stored in their order, which
    after a lost message only a sender with one chunk on its way can keep."""

    def __init__(self, bus: Bus, room: LogRoom, trace: str) -> None:
        self._bus = bus
        self._room = room
        self._trace = trace
        self._turn = asyncio.Lock()

    async def publish(self, org: str, run: str, chunk: LogChunk) -> None:
        """As the port says."""
        async with self._turn, self._room.slots:
            subject = subjects.logs(org, run, chunk.job)
            await _store(self._bus, subject, encode(chunk), headers(chunk_id(chunk), self._trace))
        self._room.count(len(chunk.lines))


class NatsCasts:
    """The CastSink of all jobs."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, org: str, run: str, chunk: CastChunk) -> None:
        """As the port says."""
        subject = subjects.cast(org, run, chunk.job, chunk.recording)
        id = f"cast.{chunk.job}.{chunk.attempt}.{chunk.recording}.{chunk.index}"
        await _store(self._bus, subject, encode(chunk), headers(id, ""))


def chunk_id(chunk: LogChunk) -> str:
    """Names the very lines: after a restart other lines may begin at the same place, and must not be dropped."""
    place = f"{chunk.job}.{chunk.attempt}.{chunk.step}.{chunk.tries}.{chunk.kind}"
    return f"{place}.{chunk.first}+{len(chunk.lines)}"
