"""Publishes refused logins, as many as the log should have to take."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from datetime import UTC, datetime
from typing import Final

from pitstop_common.messages import SshDenied
from pitstop_relay.login import Refusal
from pitstop_relay.ports import Events

log = logging.getLogger(__name__)

BURST: Final = 50
PER_SECOND: Final = 5.0
"""Anybody can make a key and be refused; the log must not fill with it."""
FLUSH_WITHIN: Final = 3.0


class Denials:
    """A queue of its own: no login waits for the log."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._queue: asyncio.Queue[SshDenied] = asyncio.Queue(BURST)
        self._allowance = float(BURST)
        self._since = time.monotonic()
        self._task = asyncio.ensure_future(self._publish())

    def add(self, refusal: Refusal) -> None:
        """Record a refusal, or let it be when there are too many."""
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._since) * PER_SECOND)
        self._since = now
        if self._allowance < 1 or self._queue.full():
            return
        self._allowance -= 1
        self._queue.put_nowait(fact(refusal, datetime.now(UTC)))

    async def close(self) -> None:
        """Publish what waits, within FLUSH_WITHIN."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN):
                await self._queue.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _publish(self) -> None:
        while True:
            denied = await self._queue.get()
            try:
                await self._events.publish(denied)
            except Exception as error:
                log.warning("ssh.denied was not stored: %s", error)
            finally:
                self._queue.task_done()


def fact(refusal: Refusal, now: datetime) -> SshDenied:
    """The refusal as a message. It names a job only when there is one."""
    access = refusal.access
    moment = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    proof = f"{refusal.client}\n{refusal.attempt.fingerprint}\n{refusal.attempt.job}\n{moment}"
    found = access is not None and access.found
    return SshDenied(
        id=f"denied.{hashlib.sha256(proof.encode()).hexdigest()[:32]}",
        time=moment,
        org=access.org if access else "",
        run=access.run if access else "",
        project=access.project if access else "",
        request=access.request if access else "",
        job=refusal.attempt.job if found else "",
        attempt=access.attempt if access else 0,
        reason=refusal.code,
        fingerprint=refusal.attempt.fingerprint,
        client=refusal.client,
    )
