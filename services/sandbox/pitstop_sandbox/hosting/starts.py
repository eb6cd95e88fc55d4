"""Takes starts from the pool while there is room, and takes up what an earlier process of this host left."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import msgspec

from pitstop_common.limits import JOB
from pitstop_common.messages import Result, Start, decode_start
from pitstop_common.pull import Delivery, Pull
from pitstop_common.streams import WORK, pool_consumer
from pitstop_common.telemetry import trace_of
from pitstop_sandbox.claims import Claims, Note, key_of
from pitstop_sandbox.hosting.attempts import Attempt, Home, claimed, finished
from pitstop_sandbox.hosting.scheduler import judge
from pitstop_sandbox.hosting.table import Table
from pitstop_sandbox.hosting.tasks import Work, alone, cancelled

log = logging.getLogger(__name__)

_BATCH: Final = 64
_LATER: Final = 5.0


class Starts:
    """Every attempt of this host begins here."""

    def __init__(self, home: Home, table: Table, claims: Claims, pool: str, group: asyncio.TaskGroup) -> None:
        self._home, self._table, self._claims, self._group = home, table, claims, group
        self._pull = Pull(home.bus, WORK, pool_consumer(pool), batch=_BATCH)
        self._claiming: set[asyncio.Task[None]] = set()
        self._living: set[asyncio.Task[None]] = set()

    # -- an earlier process ----------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Take up every attempt that has a folder; each goes its own way from there. Call it before anything else."""
        await self._home.folders.sweep()
        for folder, note in list(self._home.folders.scan()):
            if note is None:  # killed before the note was written, so before the claim
                await self._home.clear(folder.name, folder)
                await self._home.folders.remove(folder)
                continue
            self.take_up(note)

    def take_up(self, note: Note) -> None:
        """Go on with the attempt of a folder that nobody has in hand."""
        attempt = Attempt(self._home, note.start, note.trace)
        self._table.enter(attempt)
        self._spawn(self._living, self._adopt(attempt, note.token))

    async def _adopt(self, attempt: Attempt, token: str) -> None:
        claim = await self._claims.take(attempt.key, token, attempt.start.cause)
        if claim.token == token:
            log.info("adopting attempt %s", attempt.key)
            await self._live(attempt, adopted=True)
        else:
            await self._not_mine(attempt)

    # -- the pool --------------------------------------------------------------------------------------------------

    async def pull(self) -> None:
        """Take starts as long as there is room. Ends only by cancellation."""
        while True:
            if self._table.closed:  # what is asked for would be given, and handed back, again and again
                await self._pull.hand_back()
            await self._table.until_free()
            for delivery in await self._pull.next(room=self._table.free):
                self._accept(delivery)

    def look(self) -> None:
        """There is room, or none any more: ask accordingly, now."""
        self._pull.wake()

    async def stop(self, within: float) -> None:
        """Hand back what is not claimed. A claim on its way gets `within` seconds to be settled."""
        await self._pull.hand_back()
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=within)
        await cancelled(self._claiming)

    async def let_go(self) -> None:
        """Leave running attempts to their holders."""
        await cancelled(self._living)

    def _accept(self, delivery: Delivery) -> None:
        start = _decode(delivery.data)
        if start is None:
            self._spawn(self._claiming, self._refuse(delivery))
            return
        attempt = Attempt(self._home, start, trace_of(delivery.headers))
        known = self._table.get(attempt.key)
        if known is not None or self._table.has_ended(attempt.key):
            self._spawn(self._claiming, self._again(delivery, known))
        elif self._table.free() <= 0:
            self._spawn(self._claiming, delivery.nak())
        else:
            self._table.enter(attempt)
            self._spawn(self._claiming, self._begin(delivery, attempt))

    async def _begin(self, delivery: Delivery, attempt: Attempt) -> None:
        with self._home.metrics.handling("start") as outcome:
            try:
                mine = await self._claim(delivery, attempt)
            except Exception:
                self._table.leave(attempt, ended=False)
                outcome.name = "nak"
                log.exception("cannot take the start of %s", attempt.key)
                await delivery.nak(_LATER)
                return
            if mine:
                self._spawn(self._living, self._live(attempt))
            await delivery.ack()

    async def _claim(self, delivery: Delivery, attempt: Attempt) -> bool:
        begun = time.monotonic()
        note = self._home.folders.make(attempt.start, trace_of(delivery.headers))
        claim = await self._claims.take(attempt.key, note.token, attempt.start.cause)
        if claim.token == note.token:
            log.info("claimed attempt %s of %s", attempt.key, attempt.start.org)
            self._home.metrics.claimed(attempt.key, begun)
            await attempt.announce()
            return True
        # First of all: the log may not answer, and the start come again to another host.
        await self._home.folders.remove(self._home.folders.path(attempt.key))
        if claim.host == self._home.host:
            await end_lost(self._home, attempt.start)
        self._table.leave(attempt, ended=False)
        return False

    async def _again(self, delivery: Delivery, known: Attempt | None) -> None:
        with self._home.metrics.handling("start"):
            if known is not None and not known.claimed:
                return  # its first delivery is being handled, and will be acked, or come again after that
            if known is not None:
                await known.announce()
            await delivery.ack()

    async def _refuse(self, delivery: Delivery) -> None:
        with self._home.metrics.handling("start") as outcome:
            outcome.name = "term"
            await delivery.term("not a start")

    async def _not_mine(self, attempt: Attempt) -> None:
        await self._home.folders.remove(self._home.folders.path(attempt.key))
        self._table.leave(attempt, ended=False)

    async def _live(self, attempt: Attempt, *, adopted: bool = False) -> None:
        await attempt.live(adopted=adopted)
        self._table.leave(attempt, ended=True)
        log.info("nothing is left of attempt %s", attempt.key)

    def _spawn(self, tasks: set[asyncio.Task[None]], work: Work) -> None:
        task = self._group.create_task(alone(work))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def end_lost(home: Home, start: Start, result: Result = "error", reason: str = "host_restarted") -> None:
    """This host has claimed an attempt that it knows nothing of: it has ended, or its folder is gone. In the second
    case say that it is over, lest the log waits for it for ever. Raises Unavailable."""
    if judge(start, await home.scheduler.job(start.job)).over:
        return
    log.warning("attempt %s is claimed by this host and not here", key_of(start.job, start.attempt))
    facts = home.facts("")
    await facts.publish(claimed(start, home.incarnation))
    await facts.publish(finished(start, result, reason, "The sandbox host has lost the job. Run it again."))


def _decode(data: bytes) -> Start | None:
    try:
        start = decode_start(data)
    except msgspec.MsgspecError:
        return None
    return start if JOB.match(start.job) and start.attempt > 0 else None
