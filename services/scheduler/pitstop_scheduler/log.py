"""The decision log on NATS: follow it, fence it, append at its head."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from nats.js.errors import APIError

from pitstop_common import subjects
from pitstop_common.acks import Ack
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable, WrongLastSequence
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import DEC
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot_store import EVERY, Snapshots

log = logging.getLogger(__name__)


class Committed(NamedTuple):
    """A record and where it lies."""

    sequence: int
    record: c.Record


class Log:
    """One partition's log, folded. Every scheduler follows it, so that each can answer questions and take over."""

    def __init__(self, bus: Bus, partition: int, snapshot_every: int = EVERY) -> None:
        self._bus = bus
        self.partition = partition
        self.subject = subjects.decisions(partition)
        self.state = State()
        self.recent: deque[Committed] = deque()
        """Records whose effects may not all be out."""
        self.reports: dict[str, c.Reported] = {}
        self.changed = asyncio.Condition()
        self.snapshots = Snapshots(bus, partition, snapshot_every)
        self._pull = Pull(bus, DEC, reader(self.subject))
        self._loaded = False
        self.standby = True
        """Another process appends: what is folded here may be a moment old."""
        self.noise = 0
        """The newest message of the log that is no record."""
        self._waited_for = 0
        self._wanted = asyncio.Event()

    @property
    def reached(self) -> int:
        """The newest record that is folded, or, after a start from a snapshot, read again for its effects."""
        return self.recent[-1].sequence if self.recent else self.state.published_to

    @property
    def read_to(self) -> int:
        """The last that was read of the log, be it a record or not."""
        return max(self.reached, self.state.head, self.noise)

    async def load(self) -> None:
        """Start from the newest whole snapshot, or from the beginning; once, and again after a gap. Raises
        Unavailable."""
        if self._loaded:
            return
        self.state = await self.snapshots.newest(await self.head()) or State()
        self.recent.clear()
        self.reports.clear()
        await self._pull.close()
        self._pull = Pull(self._bus, DEC, reader(self.subject, self.state.published_to + 1))
        self._loaded = True

    async def follow(self, timeout: float = 0.25) -> int:
        """Fold what others appended. Returns how many records came. Raises Unavailable when the log was trimmed before
        it was read; the next call goes on from a snapshot."""
        await self.load()
        batch = await self._pull.next(timeout)
        for item in batch:
            if item.seq > self.reached:
                self._take(item.seq, c.read_record(item.data))
        if batch:
            await self._tell()
        return len(batch)

    def _take(self, sequence: int, record: c.Record | None) -> None:
        if record is None:
            log.error("%s of %s is no record, and is passed over", sequence, self.subject)
            self.noise = max(self.noise, sequence)
            return
        committed = Committed(sequence, record)
        self._check_gap(committed)
        self.take_in(committed)

    def _check_gap(self, committed: Committed) -> None:
        before = committed.record.after if committed.record.after >= 0 else committed.sequence - 1
        if before != self.reached:
            self._loaded = False
            raise Unavailable(
                f"records {self.reached + 1} to {committed.sequence - 1} of {self.subject} have been trimmed: reading"
                " the newest snapshot. If this repeats, none reaches so far: restore stream SNAP or DEC from a backup"
            )

    async def head(self) -> int:
        """The sequence of the newest record, from the stream's leader; 0: there is none. Raises Unavailable."""
        try:
            reply = await self._bus.api(f"STREAM.MSG.GET.{DEC}", {"last_by_subj": self.subject})
        except APIError as error:
            if error.code == 404:
                return 0
            raise Unavailable(str(error)) from error
        return int(reply["message"]["seq"])

    async def append(self, record: c.Record) -> Committed:
        """Append at the head that the state has folded, and fold it. Tries until the server says yes or no. Raises
        WrongLastSequence: somebody else owns the log."""
        record = msgspec.structs.replace(record, after=self.state.head)
        id = f"{record.owner}.{self.partition}.{record.epoch}.{record.number}"
        while True:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(self.read_to), "Nats-Msg-Id": id}
            try:
                ack: Ack = await self._bus.store_surely(self.subject, c.encode_record(record), headers)
                break
            except WrongLastSequence:
                if not await self._only_noise():
                    raise
        committed = Committed(ack.seq, record)
        self.take_in(committed)
        await self._tell()
        return committed

    async def _only_noise(self) -> bool:
        """Is what stands in the way no record. Raises Unavailable."""
        before, read_to = self.state.head, self.read_to
        head = await self.head()
        while self.read_to < head and self.state.head == before:
            await self.follow(0.5)
        return self.state.head == before and self.read_to > read_to

    def take_in(self, committed: Committed) -> None:
        """Fold a record, unless the snapshot held it, and keep it until its effects are out."""
        if committed.sequence > self.state.head:
            for run in self.state.ending(committed.record.published_to):
                for job in run.jobs:
                    self.reports.pop(job, None)
            fold(self.state, committed.record, committed.sequence)
        self.recent.append(committed)
        while self.recent and self.recent[0].sequence <= self.state.published_to:
            self.recent.popleft()
        for change in committed.record.changes:
            if isinstance(change, c.Reported) and change.job in self.state.jobs:
                self.reports[change.job] = change

    async def wait_for(self, sequence: int, timeout: float) -> None:
        """Until the fact at `sequence` of IN is decided on. Raises Unavailable."""

        def decided() -> bool:
            return self.state.watermark >= sequence

        try:
            async with asyncio.timeout(timeout):
                await self.until(decided)
        except TimeoutError:
            raise Unavailable("stored, but no scheduler has decided on it yet") from None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Until the state is such; a standby does not rest as long."""
        self._waited_for += 1
        self._wanted.set()
        try:
            async with self.changed:
                await self.changed.wait_for(holds)
        finally:
            self._waited_for -= 1

    async def rest(self, seconds: float) -> None:
        """A standby reads what has come together in so long, unless somebody waits for it."""
        if not self._waited_for:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()

    async def close(self) -> None:
        """Stop following."""
        await self.snapshots.cancel()
        await self._pull.close()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


__all__ = ["Committed", "Log", "WrongLastSequence"]
