"""Snapshots of a partition's fold on NATS: written beside the decisions, read at a start, the log trimmed behind them.

Chunks go first, the manifest last: what has no manifest, or other bytes than its manifest says, is never used. The two
newest are kept, and the log from where the older one needs it: when the newest cannot be read, nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from typing import Final

import msgspec
from nats.js.errors import APIError

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.pull import Pull, read_all, reader
from pitstop_common.streams import DEC, SNAP
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot import VERSION, Frozen, Manifest, frames, freeze, restore

log = logging.getLogger(__name__)

EVERY: Final = 2000
"""Records between two snapshots: what a start has to replay is at most a little more."""
_CHUNK: Final = 512 * 1024
_CHUNKS_AT_ONCE: Final = 16
"""More at once could pass what the server holds for one client, and it would hang up."""
_KEPT: Final = 2
_REST: Final = 4
"""After a snapshot the next waits this many times as long as that one took: no more than a fifth of the time."""
_AFTER_FAILURE: Final = 5.0
_AT_STOP: Final = 8.0
_READ_WITHIN: Final = 10.0


class Snapshots:
    """Those of one partition. Any scheduler may write: a committed fold is the same in each."""

    def __init__(self, bus: Bus, partition: int, every: int = EVERY) -> None:
        self._bus, self._partition, self._every = bus, partition, every
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._written = 0
        self.longest_slice = 0.0
        """The longest time in seconds that decisions had to wait for a snapshot."""

    # -- writing -----------------------------------------------------------------------------------------------------

    def consider(self, state: State) -> None:
        """Start one if it is time and none is under way."""
        idle = self._task is None or self._task.done()
        if idle and state.records - self._written >= self._every and time.monotonic() >= self._not_before:
            self._task = asyncio.create_task(self._guarded(state))

    async def at_stop(self, state: State) -> None:
        """A last one, so that the next start replays nothing; not at all if it takes too long."""
        await self.cancel()
        if state.records > self._written:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AT_STOP):
                    await self._guarded(state)

    async def cancel(self) -> None:
        """Leave the one under way torn."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _guarded(self, state: State) -> None:
        began = time.monotonic()
        try:
            manifest = await self.write(state)
            took = time.monotonic() - began
            log.info("snapshot of partition %s at record %s: %s bytes in %.2f s, decisions waited at most %.0f ms",
                     self._partition, manifest.head, manifest.size, took, self.longest_slice * 1000)  # fmt: skip
            self._not_before = time.monotonic() + took * _REST
            await self._tidy(manifest)
        except (PitstopError, APIError) as error:
            log.warning("snapshot of partition %s: %s; the next try is in %s s", self._partition, error, _AFTER_FAILURE)
            self._not_before = time.monotonic() + _AFTER_FAILURE

    async def write(self, state: State) -> Manifest:
        """Write the state as it is now, while it goes on changing."""
        began = time.perf_counter()
        frozen = freeze(state)
        self.longest_slice = time.perf_counter() - began
        head = state.head
        try:
            chunks, size, crc = await self._write_chunks(head, frozen)
        finally:
            state.unpin()
        values = frozen.scalars
        manifest = msgspec.convert(
            {**values, "version": VERSION, "chunks": chunks, "size": size, "crc": crc}, Manifest, strict=False
        )
        await self._store(subjects.snapshot(self._partition, head, subjects.MANIFEST), msgspec.json.encode(manifest))
        self._written = manifest.records
        return manifest

    async def _write_chunks(self, head: int, frozen: Frozen) -> tuple[int, int, int]:
        buffer, count, size, crc = bytearray(), 0, 0, 0
        pieces = frames(frozen)
        while True:
            began = time.perf_counter()
            frame = next(pieces, None)
            buffer += frame or b""
            self.longest_slice = max(self.longest_slice, time.perf_counter() - began)
            await asyncio.sleep(0)
            while len(buffer) >= _CHUNK or (frame is None and buffer):
                chunk = bytes(buffer[:_CHUNK])
                del buffer[:_CHUNK]
                crc = zlib.crc32(chunk, crc)
                await self._store(subjects.snapshot(self._partition, head, count), chunk)
                count, size = count + 1, size + len(chunk)
            if frame is None:
                return count, size, crc

    async def _store(self, subject: str, data: bytes) -> None:
        """Until it is stored: twice is as good as once, a subject keeps one message. (No `Nats-Msg-Id`: the server
        would take a chunk for a duplicate that it has purged since.)"""
        delay = 0.05
        while True:
            try:
                await self._bus.store(subject, data)
                return
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    # -- what is behind them -------------------------------------------------------------------------------------------

    async def _tidy(self, mine: Manifest) -> None:
        """Drop older and torn snapshots, then the log that none of the kept ones needs. Whoever does this late does no
        harm: it only touches what is older than its own."""
        whole = await self.manifests()
        kept = [manifest for manifest in whole if manifest.head <= mine.head][:_KEPT]
        keep = {manifest.head for manifest in kept}
        for head in sorted(await self._heads()):
            if head < mine.head and head not in keep:
                await self._purge(SNAP, {"filter": subjects.snapshot(self._partition, head, ">")})
        if len(kept) == _KEPT:
            behind = kept[-1].published_to + 1
            await self._purge(DEC, {"filter": subjects.decisions(self._partition), "seq": behind})

    async def _heads(self) -> set[int]:
        wanted = subjects.snapshot(self._partition, "*", "*")
        reply = await self._bus.api(f"STREAM.INFO.{SNAP}", {"subjects_filter": wanted})
        return {int(subject.split(".")[2]) for subject in reply["state"].get("subjects") or {}}

    async def _purge(self, stream: str, body: dict[str, object]) -> None:
        await self._bus.api(f"STREAM.PURGE.{stream}", body, timeout=5.0)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def manifests(self) -> list[Manifest]:
        """Of all whole snapshots, newest first. Raises Unavailable."""
        found = []
        for item in await read_all(self._bus, SNAP, subjects.snapshot(self._partition, "*", subjects.MANIFEST)):
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(msgspec.json.decode(item.data, type=Manifest))
        return sorted((one for one in found if one.version == VERSION), key=lambda one: -one.head)

    async def newest(self, head: int) -> State | None:
        """The state of the newest snapshot that can be read; None: there is none. `head`: the log's, which no snapshot
        of it can be ahead of. Raises Unavailable."""
        for manifest in await self.manifests():
            if manifest.head > head:
                log.error("the snapshot at record %s is ahead of the log, which ends at %s", manifest.head, head)
                continue
            state = await self.read(manifest)
            if state is not None:
                self._written = manifest.records
                return state
            log.error("the snapshot at record %s cannot be used: trying an older one", manifest.head)
        return None

    async def read(self, manifest: Manifest) -> State | None:
        """The state a manifest speaks of; None: its bytes are not there, or not those. Raises Unavailable."""
        data = await self._read_bytes(manifest)
        if len(data) != manifest.size or zlib.crc32(data) != manifest.crc:
            return None
        state = None
        try:
            for part in restore(data):
                state = part
                await asyncio.sleep(0)
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("snapshot at record %s: %s", manifest.head, error)
            return None
        return state if state is not None and state.head == manifest.head else None

    async def _read_bytes(self, manifest: Manifest) -> bytes:
        wanted = subjects.snapshot(self._partition, manifest.head, "*")
        pull = Pull(self._bus, SNAP, reader(wanted), batch=_CHUNKS_AT_ONCE)
        chunks: dict[str, bytes] = {}
        deadline = time.monotonic() + _READ_WITHIN
        try:
            while subjects.MANIFEST not in chunks:
                batch = await pull.next(0.5)
                chunks.update((item.subject.split(".")[3], item.data) for item in batch)
                if batch:
                    deadline = time.monotonic() + _READ_WITHIN
                    if not batch[-1].pending:
                        break
                elif pull.drained and pull.answering:  # purged since: a newer one is there
                    break
                elif time.monotonic() > deadline:
                    raise Unavailable("reading a snapshot stalled")
        finally:
            await pull.close()
        return b"".join(chunks.get(str(number), b"") for number in range(manifest.chunks))
