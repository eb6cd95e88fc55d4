"""The owner of a partition: takes over, decides on facts, commits, puts the effects out; a standby until then.

Liveness is a key that expires; safety is not built on it. The fence is the epoch record: whoever appended it last
owns the log, and every older owner's next append fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

import msgspec

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable, WrongLastSequence
from pitstop_common.limits import OWNER_TTL
from pitstop_common.messages import (
    HoldRemove,
    HoldSet,
    HostDrain,
    OrgConfigured,
    PoolConfigured,
    RunAccepted,
    RunCancel,
    RunExtend,
    RunPause,
    decode_fact,
)
from pitstop_common.pull import Delivery, Pull, reader
from pitstop_common.streams import IN
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.effects import effects
from pitstop_scheduler.log import Committed, Log
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.overdue import watch
from pitstop_scheduler.publisher import Publisher
from pitstop_scheduler.seats import Seats
from pitstop_scheduler.tick import Stored

log = logging.getLogger(__name__)

_NOT_A_NAME: Final = b"{"
"""How an answer of the server begins, which somebody had sent to the key."""
_RENEW: Final = 0.5
_LOOK: Final = 0.25
"""Seconds between two looks at the liveness key of a partition that another owns."""
_REST: Final = 0.1
"""Seconds for which a standby lets records come together; who waits for one does not wait for this."""
_FACTS_A_TICK: Final = 1000
_ASKED: Final = (
    RunAccepted, RunCancel, RunExtend, RunPause, OrgConfigured, PoolConfigured, HoldSet, HoldRemove, HostDrain,
)  # fmt: skip
"""Facts whose author waits to hear that they were decided on, even if nothing came of them."""
_TICK: Final = 0.005
"""Seconds between two ticks at the least: under load facts are decided on by the dozen; an idle owner does not wait."""
_MARK_EVERY: Final = 2.0
"""An idle owner writes down how far its effects are out at most this often."""


class Partition:
    """One partition in one scheduler process."""

    def __init__(
        self, bus: Bus, log_: Log, owner: str, defaults: c.Defaults, metrics: Metrics, seats: Seats | None = None
    ) -> None:
        self._seats = seats or Seats(bus, owner)
        self._bus, self._log, self._owner, self._defaults, self._metrics = bus, log_, owner, defaults, metrics
        self._liveness = Bucket(bus, "owners")
        self._key = str(log_.partition)
        self._epoch = self._number = 0
        self._revision = 0
        self.owned = False
        self.followed = asyncio.Event()
        """Set when the log has been read to its end once: questions can be answered."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow, take over when nobody lives and there is a seat for it, decide; until told to stop."""
        await self._catch_up()
        last = 0
        looked = 0.0
        while not stopping.is_set():
            try:
                if await self._log.follow():
                    await self._log.rest(_REST)
                if time.monotonic() - looked < _LOOK or not self._seats.may_take(self._log.partition):
                    continue
                looked = time.monotonic()
                self._seats.take(self._log.partition)
                if not await self._claim_liveness():
                    continue
                await self._own(stopping)
                last = self._log.state.head
                await self._release()
            except WrongLastSequence:
                log.warning("partition %s has another owner now", self._key)
            except PitstopError as error:
                log.warning("partition %s: %s", self._key, error)
                await asyncio.sleep(0.2)
            finally:
                self.owned, self._log.standby = False, True
                self._seats.leave(self._log.partition)
                self._metrics.disown(self._log.partition)
        await self._release()
        if last and last == self._log.state.head:  # owned it up to the end
            await self._log.snapshots.at_stop(self._log.state)

    # -- liveness ----------------------------------------------------------------------------------------------------

    async def _claim_liveness(self) -> bool:
        entry = await self._liveness.get(self._key)
        if entry is not None and entry.value is not None and not entry.value.startswith(_NOT_A_NAME):
            self._revision = entry.revision
            return entry.value == self._owner.encode()  # it is: the answer to an earlier claim was lost
        try:
            revision = entry.revision if entry else 0
            self._revision = await self._liveness.swap(self._key, self._owner.encode(), revision, ttl=OWNER_TTL)
        except WrongLastSequence:
            return False
        return True

    async def _keep_alive(self) -> None:
        """Ends when another process lives in this one's place."""
        while True:
            await asyncio.sleep(_RENEW)
            try:
                self._revision = await self._liveness.swap(
                    self._key, self._owner.encode(), self._revision, ttl=OWNER_TTL
                )
            except Unavailable:
                continue
            except WrongLastSequence:
                with contextlib.suppress(Unavailable):
                    if not await self._claim_liveness():
                        return

    async def _release(self) -> None:
        with contextlib.suppress(PitstopError):
            entry = await self._liveness.get(self._key)
            if entry is not None and entry.value == self._owner.encode():
                await self._liveness.delete(self._key, entry.revision)

    # -- ownership ---------------------------------------------------------------------------------------------------

    async def _own(self, stopping: asyncio.Event) -> None:
        alive = asyncio.create_task(self._keep_alive())
        watching = asyncio.create_task(watch(self._bus, self._log))
        publisher: Publisher | None = None
        pull: Pull | None = None
        try:
            await self._fence()
            publisher = Publisher(self._bus, self._log.state)
            for committed in tuple(self._log.recent):
                await self._publish(publisher, committed)
            pull = Pull(self._bus, IN, reader(subjects.facts_of(self._log.partition), self._log.state.watermark + 1))
            self.owned, self._log.standby = True, False
            self._metrics.own(self._log.partition)
            log.info("owns partition %s, epoch %s, head %s", self._key, self._epoch, self._log.state.head)
            await self._tick([], publisher)  # limits may be others now
            await self._decide_until(stopping, alive, pull, publisher)
            await publisher.settle(5.0)
            await self._commit(publisher, (), self._log.state.watermark, self._log.state.now)
        finally:
            alive.cancel()
            watching.cancel()
            await asyncio.gather(alive, watching, self._log.snapshots.cancel(), return_exceptions=True)
            if pull is not None:
                await pull.close()
            if publisher is not None:
                await publisher.close()

    async def _catch_up(self) -> None:
        while True:
            try:
                await self._read_to_the_end()
                break
            except Unavailable as error:
                log.warning("the log cannot be read yet: %s", error)
                await asyncio.sleep(0.2)
        self.followed.set()

    async def _fence(self) -> None:
        await self._read_to_the_end()
        state = self._log.state
        self._epoch, self._number = state.epoch + 1, 0
        record = c.Record(
            self._epoch, 0, self._owner, state.watermark, state.now, state.published_to, (self._defaults,)
        )  # fmt: skip
        await self._log.append(record)

    async def _read_to_the_end(self) -> None:
        await self._log.load()
        head = await self._log.head()
        deadline = time.monotonic() + 30
        while max(self._log.reached, self._log.noise) < head:
            if not await self._log.follow(0.5) and time.monotonic() > deadline:
                raise Unavailable("the log cannot be read to its end")

    async def _decide_until(
        self, stopping: asyncio.Event, alive: asyncio.Task[None], pull: Pull, publisher: Publisher
    ) -> None:
        marked = begun = time.monotonic()
        while not stopping.is_set():
            if self._seats.too_many(self._log.partition):
                log.info("gives partition %s back: others have joined", self._key)
                return
            if alive.done():
                raise WrongLastSequence("another scheduler lives in this one's place")
            if (left := begun + _TICK - time.monotonic()) > 0:
                await asyncio.sleep(left)
            deliveries = await pull.next(0.25, _FACTS_A_TICK)
            if deliveries:
                begun = time.monotonic()
                await self._tick(deliveries, publisher)
                marked = time.monotonic()
            elif time.monotonic() - marked > _MARK_EVERY:
                marked = time.monotonic()
                if publisher.advance() > self._log.state.published_to and self._unpublished():
                    await self._commit(publisher, (), self._log.state.watermark, self._log.state.now)
            self._log.snapshots.consider(self._log.state)

    def _unpublished(self) -> bool:
        return any(committed.record.changes for committed in self._log.recent)

    async def _tick(self, deliveries: list[Delivery], publisher: Publisher) -> None:
        facts = [stored for stored in map(_stored, deliveries) if stored is not None]
        decision = decide(self._log.state, facts, self._log.state.now)
        asked = any(isinstance(stored.fact, _ASKED) for stored in facts)
        if decision.changes or asked:  # somebody waits to hear that it was decided on
            await self._commit(publisher, decision.changes, decision.watermark, decision.now)

    async def _commit(self, publisher: Publisher, changes: tuple[c.AnyChange, ...], watermark: int, now: float) -> None:
        self._number += 1
        record = c.Record(self._epoch, self._number, self._owner, watermark, now, publisher.advance(), changes)
        ended = self._log.state.ending(record.published_to)
        committed = await self._log.append(record)
        await self._publish(publisher, committed)
        self._metrics.count(record, self._log.state)
        for run in ended:
            publisher.forget(run.org, run.id, run.jobs)

    async def _publish(self, publisher: Publisher, committed: Committed) -> None:
        sequence, record = committed
        await publisher.publish(sequence, effects(self._log.state, record, sequence, self._log.partition))


def _stored(delivery: Delivery) -> Stored | None:
    try:
        fact = decode_fact(delivery.data)
    except msgspec.MsgspecError as error:
        log.error("a fact that cannot be read is passed over: %s at %s: %s", delivery.subject, delivery.seq, error)
        return None
    address = subjects.parse_fact(delivery.subject)
    if address.org != (fact.org or subjects.NOBODY) or address.run != (fact.run or subjects.NOBODY):
        log.error("a fact whose body and subject differ is passed over: %s at %s", delivery.subject, delivery.seq)
        return None
    return Stored(delivery.seq, delivery.stored, fact)
