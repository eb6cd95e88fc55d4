"""What lies on this host's disk, or lives on it, and that no attempt in hand accounts for: ended and removed at the
start, each minute, and when the janitor asks.

Whatever has a name, a note or a holder of ours is ours; nothing else is touched. The log is asked before anything ends
that could still be wanted, so that a wrong or late question does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Literal

from pitstop_common.errors import Unavailable
from pitstop_common.messages import Freed, SweepReply, SweepRequest
from pitstop_sandbox.backends.port import Backend
from pitstop_sandbox.claims import Note
from pitstop_sandbox.hosting.attempts import Attempt, Home
from pitstop_sandbox.hosting.scheduler import Verdict, judge
from pitstop_sandbox.hosting.starts import Starts
from pitstop_sandbox.hosting.table import Table
from pitstop_sandbox.hosting.tasks import within

log = logging.getLogger(__name__)

SWEEP_EVERY: Final = 60.0
COMMAND_WITHIN: Final = 5.0
"""For an attempt to write down that it is to end, seconds."""
_MOST_KEYS: Final = 1000
"""Of one request."""

Reason = Literal["ended", "superseded", "unknown", "no_owner"]


class Leftovers:
    """The sweeper of one host. One sweep at a time."""

    def __init__(self, home: Home, table: Table, starts: Starts, backend: Backend, root: Path) -> None:
        self._home, self._table, self._starts, self._backend, self._root = home, table, starts, backend, root
        self._turn = asyncio.Lock()

    async def every_minute(self) -> None:
        """Begins at once. Ends only by cancellation."""
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_EVERY)

    async def asked(self, request: SweepRequest) -> SweepReply:
        """End those attempts of a request that the log does not want any more, and sweep."""
        freed: list[Freed] = []
        for key in request.keys[:_MOST_KEYS]:
            attempt = self._table.get(key)
            if attempt is not None:
                freed += await self._review(attempt)
        return SweepReply(freed=(*freed, *await self.sweep()))

    async def sweep(self) -> list[Freed]:
        """End and remove what nobody has in hand; what cannot be is in the next heartbeat."""
        async with self._turn:
            left: list[tuple[Literal["sandbox", "folder"], str]] = []
            freed: list[Freed] = []
            for folder, note in list(self._home.folders.scan()):
                if self._table.get(folder.name) is None:
                    freed += await self._folder(folder, note)
                    if folder.exists() and self._table.get(folder.name) is None:
                        left.append(("folder", folder.name))
            for folder, id in (await self._backend.mine(self._root)).items():
                if self._table.get(id) is None and ("folder", id) not in left:
                    await self._home.clear(id, folder)
                    freed.append(Freed(kind="sandbox", key=id, reason="no_owner"))
            left += [("sandbox", id) for id in (await self._living(freed))]
            await self._home.folders.sweep()
            self._table.leftovers = tuple(left)
        for one in freed:
            log.warning("%s %s had no owner (%s): it is gone", one.kind, one.key, one.reason)
            self._home.metrics.swept(one.kind, one.reason)
        return freed

    async def _living(self, freed: list[Freed]) -> list[str]:
        """Sandboxes that live on though they were to be removed; these are not freed."""
        if all(one.kind != "sandbox" for one in freed):
            return []
        living = set((await self._backend.mine(self._root)).values())
        still = [one for one in freed if one.kind == "sandbox" and one.key in living]
        for one in still:
            freed.remove(one)
        return [one.key for one in still]

    async def _folder(self, folder: Path, note: Note | None) -> list[Freed]:
        reason: Reason | None = "no_owner"
        if note is not None:
            reason = await self._reason(folder.name, note)
        if reason is None or self._table.get(folder.name) is not None:
            return []
        await self._home.clear(folder.name, folder)
        if self._table.get(folder.name) is None:
            await self._home.folders.remove(folder)
        return [] if folder.exists() else [Freed(kind="folder", key=folder.name, reason=reason)]

    async def _reason(self, key: str, note: Note) -> Reason | None:
        """Why the folder is to go; None: it is not, now. An attempt that is still wanted is taken up."""
        if self._table.has_ended(key):
            return "ended"
        try:
            verdict = judge(note.start, await self._home.scheduler.job(note.start.job))
        except Unavailable as error:
            log.debug("folder %s stays: %s", key, error)
            return None
        if verdict.over:
            return _reason_of(verdict)
        if self._table.get(key) is None:
            log.warning("attempt %s is still wanted, and nobody had it in hand", key)
            self._starts.take_up(note)
        return None

    async def _review(self, attempt: Attempt) -> list[Freed]:
        try:
            verdict = judge(attempt.start, await self._home.scheduler.job(attempt.start.job))
        except Unavailable as error:
            log.debug("attempt %s goes on: %s", attempt.key, error)
            return []
        if verdict.stop is None:
            return []
        log.warning("attempt %s is ended: %s", attempt.key, verdict.stop.reason)
        await within(COMMAND_WITHIN, attempt.command(verdict.stop))
        return [Freed(kind="attempt", key=attempt.key, reason=_reason_of(verdict))]


def _reason_of(verdict: Verdict) -> Reason:
    said = verdict.stop.reason if verdict.stop else ""
    return "superseded" if said == "superseded" else "unknown" if said == "unknown" else "ended"
