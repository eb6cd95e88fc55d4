"""Does what the scheduler tells this host: stop a job, end a pause. A command is acked when it is written down."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from pitstop_common.messages import Command, Drain, Start, Stop, decode_command
from pitstop_common.pull import Delivery, Pull
from pitstop_common.streams import WORK, host_consumer
from pitstop_sandbox.claims import Claims, key_of
from pitstop_sandbox.hosting.attempts import Home, claimed, finished
from pitstop_sandbox.hosting.drained import Drained
from pitstop_sandbox.hosting.metrics import Outcome
from pitstop_sandbox.hosting.starts import end_lost
from pitstop_sandbox.hosting.table import Table
from pitstop_sandbox.hosting.tasks import alone, cancelled

log = logging.getLogger(__name__)

_BATCH: Final = 64
_LATER: Final = 2.0


class Commands:
    """Commands of different jobs do not wait for each other."""

    def __init__(
        self, home: Home, table: Table, claims: Claims, group: asyncio.TaskGroup, drained: Callable[[Drained], None]
    ) -> None:
        """`drained` hears whether to take jobs, and returns when that is on disk."""
        self._home, self._table, self._claims, self._group, self._drained = home, table, claims, group, drained
        self._pull = Pull(home.bus, WORK, host_consumer(home.host), batch=_BATCH)
        self._doing: dict[int, asyncio.Task[None]] = {}

    async def pull(self) -> None:
        """Ends only by cancellation."""
        while True:
            for delivery in await self._pull.next():
                if delivery.seq not in self._doing:
                    self._doing[delivery.seq] = self._group.create_task(alone(self._do(delivery)))

    async def stop(self) -> None:
        """Hand back what is not begun, and what is not done yet: it is told to the next process."""
        await self._pull.hand_back()
        await cancelled(self._doing.values())

    async def _do(self, delivery: Delivery) -> None:
        with self._home.metrics.handling("command") as outcome:
            try:
                await self._try(delivery, outcome)
            except Exception:
                log.exception("a command failed; it comes again")
                outcome.name = "nak"
                await delivery.nak(_LATER)
            finally:
                self._doing.pop(delivery.seq, None)

    async def _try(self, delivery: Delivery, outcome: Outcome) -> None:
        try:
            command = decode_command(delivery.data)
        except msgspec.MsgspecError as error:
            outcome.name = "term"
            await delivery.term(f"not a command: {error}")
            return
        if isinstance(command, Drain):
            self._drained(Drained(command.on, command.serial))
            await delivery.ack()
            return
        key = key_of(command.job, command.attempt)
        attempt = self._table.get(key)
        if attempt is not None:
            await attempt.command(command)
        elif isinstance(command, Stop) and not self._table.has_ended(key):
            await self._stop_absent(key, command)
        await delivery.ack()

    async def _stop_absent(self, key: str, command: Stop) -> None:
        """It may have ended under an earlier process, or not have come yet. The claim says which; one made here keeps
        the attempt from ever starting, on any host."""
        start = _start_of(command)
        token = secrets.token_hex(8)
        claim = await self._claims.take(key, token)
        if claim.token == token:
            facts = self._home.facts("")
            await facts.publish(claimed(start, self._home.incarnation))
            await facts.publish(finished(start, command.result, command.reason, command.notice))
        elif claim.host == self._home.host and self._table.get(key) is None:
            await end_lost(self._home, start, command.result, command.reason)
        self._table.ended(key)


def _start_of(command: Command) -> Start:
    return Start(org=command.org, run=command.run, job=command.job, attempt=command.attempt, cause=command.cause)
