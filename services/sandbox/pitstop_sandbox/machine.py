"""A job's state over its journal: events in, instructions out, everything sent, nothing forgotten by a kill."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pitstop_common.messages import Pause
from pitstop_sandbox import decide
from pitstop_sandbox.events import Event, Instruction, PauseWanted, Stored, Tick
from pitstop_sandbox.journal import Journal
from pitstop_sandbox.model import JobState
from pitstop_sandbox.outbox import Outbox
from pitstop_sandbox.transitions import Status


class Machine(ABC):
    """Folds the journal, takes events one at a time, keeps the outbox and the deadlines going."""

    def __init__(self, start: JobState, journal: Path, outbox: Outbox, clock: Callable[[], float]) -> None:
        self._job = start
        self._path = journal
        self._outbox = outbox
        self._clock = clock
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._begun = asyncio.Event()
        self._over = False
        self._loops: list[asyncio.Task[None]] = []
        self._tasks: asyncio.TaskGroup
        self._journal: Journal

    @abstractmethod
    def _perform(self, instruction: Instruction) -> None:
        """Begin what is asked. What is in the outbox is sent without."""

    @abstractmethod
    async def _prepare(self, *, resumed: bool) -> None:
        """Before the first event is taken. `resumed`: there was a journal."""

    async def _live_through(self) -> None:
        """From the journal as it is to the end of the job. Raises JournalError."""
        resumed = self._path.exists()
        self._journal = Journal(self._path)
        try:
            for entry in self._journal.entries:
                self._job, _ = decide.decide(self._job, entry.event, entry.now)
            if self._job.status is not Status.FINISHED:
                async with asyncio.TaskGroup() as self._tasks:
                    await self._drive(resumed=resumed)
        finally:
            self._over = True
            self._begun.set()
            self._journal.close()

    async def _drive(self, *, resumed: bool) -> None:
        await self._prepare(resumed=resumed)
        for loop in (self._send_all(), self._tick(), self._listen(), self._measure(), self._keep_ready()):
            self._begin_loop(loop)
        self._begun.set()
        for instruction in decide.pending(self._job):
            self._perform(instruction)
        await self._until(lambda: self._job.status is Status.FINISHED)
        for task in self._loops:
            task.cancel()

    @abstractmethod
    async def _listen(self) -> None:
        """Hears requests for as long as the job lives."""

    @abstractmethod
    async def _measure(self) -> None:
        """Looks at what people's processes do, for as long as the job lives."""

    @abstractmethod
    async def _keep_ready(self) -> None:
        """Has a shell ready for whoever comes, for as long as the job lives."""

    @property
    def _live(self) -> bool:
        return self._begun.is_set() and not self._over

    async def _ready(self) -> bool:
        await self._begun.wait()
        return not self._over

    async def pause(self, command: Pause) -> None:
        """Pause when the step in progress ends, or not. Returns when that is written down, or the job is over."""
        if await self._ready():
            self._apply(PauseWanted(revision=command.revision, by=command.by, off=command.off, cause=command.cause))

    def _apply(self, event: Event) -> None:
        now = self._clock()
        state, instructions = decide.decide(self._job, event, now)
        self._journal.append(now, event)
        self._job = state
        if self._begun.is_set():
            for instruction in instructions:
                self._perform(instruction)
        for reached, future in self._waiting:
            if not future.done() and reached():
                future.set_result(None)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    def _begin_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that goes on until the job's end."""
        self._loops.append(self._begin(work))

    async def _until(self, reached: Callable[[], bool]) -> None:
        # Looked at with each event, so that nobody is woken for an event that does not concern them.
        while not reached():
            waiter = reached, asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter[1]
            finally:
                self._waiting.remove(waiter)

    async def _send_all(self) -> None:
        while True:
            await self._until(lambda: bool(self._job.outbox))
            items = self._job.outbox
            for item in items:
                await self._outbox.send(self._job, item)
            self._apply(Stored(number=items[-1].number))

    async def _tick(self) -> None:
        while True:
            due = decide.deadline(self._job)
            left = None if due is None else max(0.0, due - self._clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._until(lambda due=due: decide.deadline(self._job) != due)  # type: ignore[misc]
            if due is not None and self._clock() >= due:
                self._apply(Tick())
