"""Read models in the bucket `runs`: written whole, compare-and-set, and never over a newer one.

They trail the log by a short time, so that the changes of many ticks become one write. Questions about living runs are
answered from the fold; these are for the time after, and for the janitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

import msgspec

from pitstop_common import messages as m
from pitstop_common.acks import Ack
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable, WrongLastSequence
from pitstop_scheduler.forced import guests
from pitstop_scheduler.model import Job, Run
from pitstop_scheduler.transitions import HOLDS_SLOT
from pitstop_scheduler.underway import Underway

log = logging.getLogger(__name__)

_SETTLE: Final = 1.0
"""Seconds."""

Make = Callable[[int], bytes | None]
"""The view as it is now, for the sequence of the decision it is written after; None: it is not needed any more."""


def run_view(run: Run, sequence: int) -> m.RunView:
    """A run, for readers."""
    status: Literal["queued", "running", "finished"]
    status = "finished" if run.result else "running" if run.started else "queued"
    return m.RunView(
        run=run.id, org=run.org, project=run.project, request=run.request, actor=run.actor, status=status,
        result=run.result, jobs=run.jobs, priority=run.priority, created=run.created, started=run.started,
        finished=run.finished, rerun_of=run.rerun_of, trace=run.trace, seq=sequence,
    )  # fmt: skip


def job_view(job: Job, run: Run, sequence: int) -> m.JobView:
    """A job, for readers."""
    held = job.status in HOLDS_SLOT
    return m.JobView(
        job=job.id, run=run.id, org=run.org, project=run.project, key=job.key, pool=job.pool, status=job.status,
        attempt=job.attempt, result=job.result, reason=job.reason, host=job.host, incarnation=job.incarnation,
        use=("debug" if job.status == "paused" else "run") if held else "", slot_since=job.granted,
        sessions=len(job.sessions), entered=job.first_login > 0, active=job.active, paused_at=job.paused,
        deadline=job.deadline, deadline_reason=job.deadline_reason, revision=job.revision, queued=job.queued,
        finished=job.finished, earlier=job.earlier,
        hold=job.hold.id if job.hold and job.hold.used else "",
        held_for=job.hold.user if job.hold and job.hold.used else "",
        pausing=bool(job.forced and job.forced.armed) and job.status not in {"stopping", "finished"},
        pausing_by=job.forced.by if job.forced else "", pausing_step=job.forced.step if job.forced else 0,
        guests=guests(job.forced), seq=sequence,
    )  # fmt: skip


class _Sequence(msgspec.Struct):
    seq: int = 0


_sequence_of = msgspec.json.Decoder(_Sequence).decode


class _Slot:
    __slots__ = ("flying", "make", "revision", "stored", "wanted", "written")

    def __init__(self, make: Make) -> None:
        self.make = make
        self.wanted = self.written = self.revision = 0
        self.stored: list[tuple[int, Callable[[], None]]] = []
        self.flying = False


class Views:
    """The writer of one owner."""

    def __init__(self, bus: Bus, underway: Underway) -> None:
        self._bucket = Bucket(bus, "runs")
        self._underway = underway
        self._slots: dict[str, _Slot] = {}
        self._dirty: dict[str, _Slot] = {}
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin(self._write_all())

    def want(self, key: str, make: Make, sequence: int, stored: Callable[[], None]) -> None:
        """Have a view written. `stored` is called when this one, or a newer one, is stored. Tries for ever."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(make)
        if sequence >= slot.wanted:
            slot.make, slot.wanted = make, sequence
        slot.stored.append((sequence, stored))
        self._mark(key, slot)

    def forget(self, keys: list[str]) -> None:
        """No more writes will come for these."""
        for key in keys:
            self._slots.pop(key, None)

    def hurry(self) -> None:
        """Write at once from now on."""
        self._hurry.set()

    async def close(self) -> None:
        """Write no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _mark(self, key: str, slot: _Slot) -> None:
        if not slot.flying:
            self._dirty[key] = slot
            self._some.set()

    async def _write_all(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE):
                    await self._hurry.wait()
            self._some.clear()
            dirty, self._dirty = self._dirty, {}
            for key, slot in dirty.items():
                await self._write(key, slot)

    async def _write(self, key: str, slot: _Slot) -> None:
        wanted = slot.wanted
        data = slot.make(wanted)
        if data is None:
            self._done(key, slot, wanted)
            return
        slot.flying = True
        expected = {"Nats-Expected-Last-Subject-Sequence": str(slot.revision)}
        await self._underway.send(self._bucket.subject(key), data, expected, partial(self._heard, key, slot, wanted))

    def _heard(self, key: str, slot: _Slot, wanted: int, answer: Ack | PitstopError) -> None:
        if isinstance(answer, Ack):
            slot.revision = answer.seq
            self._done(key, slot, wanted)
        elif isinstance(answer, WrongLastSequence | Unavailable):
            self._begin(self._catch_up(key, slot, wanted))
        else:
            log.error("view %s cannot be written: %s", key, answer)
            self._done(key, slot, wanted)

    def _done(self, key: str, slot: _Slot, written: int) -> None:
        slot.flying = False
        slot.written = max(slot.written, written)
        waiting, slot.stored = slot.stored, []
        for sequence, stored in waiting:
            if sequence <= slot.written:
                stored()
            else:
                slot.stored.append((sequence, stored))
        if slot.stored:
            self._mark(key, slot)

    async def _catch_up(self, key: str, slot: _Slot, wanted: int) -> None:
        """The newest may be another owner's, or our own whose answer was lost."""
        while True:
            try:
                entry = await self._bucket.get(key)
                break
            except Unavailable:
                await asyncio.sleep(0.2)
        slot.revision = entry.revision if entry else 0
        written = _sequence_of(entry.value).seq if entry is not None and entry.value else 0
        self._done(key, slot, written)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
