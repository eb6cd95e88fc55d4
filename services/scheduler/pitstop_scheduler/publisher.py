"""Puts the effects of committed records out, and knows up to which record all of them are acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from nats.js.errors import APIError

from pitstop_common import messages as m
from pitstop_common.acks import Ack, Refused
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.streams import TIMERS
from pitstop_scheduler.effects import Disarm, Effect, Publish, ReportView, View
from pitstop_scheduler.model import State
from pitstop_scheduler.underway import Underway
from pitstop_scheduler.views import Views, job_view, run_view

log = logging.getLogger(__name__)

_AGAIN: Final = 0.05
"""Before the second try of what was not answered; later ones wait longer, up to a second."""


class _Record:
    """A record, and how many of its effects are not out yet."""

    __slots__ = ("left", "sequence")

    def __init__(self, sequence: int, left: int) -> None:
        self.sequence, self.left = sequence, left


class Publisher:
    """Effects of one owner, in the order of their records; several records may be under way."""

    def __init__(self, bus: Bus, state: State) -> None:
        self._bus, self._state = bus, state
        self._underway = Underway(bus)
        self._views = Views(bus, self._underway)
        self._open: deque[_Record] = deque()
        self._out = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.published_to = state.published_to

    async def publish(self, sequence: int, effects: list[Effect]) -> None:
        """Send the effects of one record; they are followed up until each is acknowledged."""
        record = _Record(sequence, len(effects))
        self._open.append(record)
        for effect in effects:
            if isinstance(effect, Publish):
                await self._underway.send(*effect[:3], partial(self._heard, effect, record))
            elif isinstance(effect, Disarm):
                self._begin(self._disarm(effect.subject, record))
            else:
                self._want(effect, record)

    def advance(self) -> int:
        """The newest record up to which everything is acknowledged."""
        while self._open and not self._open[0].left:
            self.published_to = max(self.published_to, self._open.popleft().sequence)
        return self.published_to

    async def settle(self, timeout: float) -> None:
        """Wait for what is under way, at most `timeout` seconds."""
        self._views.hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while any(record.left for record in self._open):
                    self._out.clear()
                    await self._out.wait()

    async def close(self) -> None:
        """Drop what is under way: the next owner publishes it again."""
        await self._underway.close()
        await self._views.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._open.clear()

    def forget(self, org: str, run: str, jobs: tuple[str, ...]) -> None:
        """A run has left the fold: its views will not change any more."""
        root = f"{org}.{run}"
        self._views.forget([root, *(f"{root}.{job}" for job in jobs), *(f"{root}.{job}.report" for job in jobs)])

    def _heard(self, effect: Publish, record: _Record, answer: Ack | PitstopError) -> None:
        if isinstance(answer, Unavailable):
            self._begin(self._again(effect, record))
            return
        if not isinstance(answer, Ack):
            log.error("an effect was refused: %s %s", effect.subject, answer)
        self._is_out(record)

    async def _again(self, effect: Publish, record: _Record) -> None:
        delay = _AGAIN
        while not self._overtaken(effect):
            try:
                await self._bus.store(*effect[:3])
                break
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
            except Refused as error:
                log.error("an effect was refused: %s %s", effect.subject, error)
                break
        self._is_out(record)

    def _overtaken(self, effect: Publish) -> bool:
        """A timer that comes late would take the place of a newer one."""
        if effect.arms is None:
            return False
        id, revision = effect.arms
        job = self._state.job(id)
        return job is None or job.revision != revision

    async def _disarm(self, subject: str, record: _Record) -> None:
        delay = _AGAIN
        while True:
            try:
                await self._bus.api(f"STREAM.PURGE.{TIMERS}", {"filter": subject})
                break
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(1.0, delay * 2)
            except APIError as error:
                log.error("a timer is left to fire in vain: %s %s", subject, error)
                break
        self._is_out(record)

    def _want(self, effect: View | ReportView, record: _Record) -> None:
        run = self._state.run(effect.run)
        if run is None:
            self._is_out(record)
            return
        root = f"{run.org}.{run.id}"
        stored = partial(self._is_out, record)
        if isinstance(effect, ReportView):
            self._views.want(f"{root}.{effect.view.job}.report", partial(_report, effect), record.sequence, stored)
        elif effect.job:
            self._views.want(f"{root}.{effect.job}", partial(self._job, effect), record.sequence, stored)
        else:
            self._views.want(root, partial(self._run, effect), record.sequence, stored)

    def _run(self, effect: View, sequence: int) -> bytes | None:
        run = self._state.run(effect.run)
        return m.encode(run_view(run, sequence)) if run else None

    def _job(self, effect: View, sequence: int) -> bytes | None:
        run, job = self._state.run(effect.run), self._state.job(effect.job)
        return m.encode(job_view(job, run, sequence)) if run and job else None

    def _is_out(self, record: _Record) -> None:
        record.left -= 1
        if not record.left:
            self._out.set()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _report(effect: ReportView, sequence: int) -> bytes:
    view = effect.view
    return m.encode(
        m.ReportView(job=view.job, attempt=view.attempt, report=view.report, message=view.message, seq=sequence)
    )
