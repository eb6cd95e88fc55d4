"""Waiting for a run: its events wake us, its status is the truth."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from pitstop_cli.client import Client

_NOUNS: Final = ("run", "job", "step", "sandbox", "ssh", "session")
_SETTLE_SECONDS: Final = 0.03
"""An event is heard a moment before the read model it goes with is written."""
_POLL_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 30.0
"""A scheduler or a server that was killed is back sooner."""

Status = dict[str, Any]
"""{"run": RunView, "jobs": [{"job", "report", "position", "reason", "limit", "used", "allowed"}]}"""


class Watch:
    """The status of a run, each time it may have changed. Made by `watching`."""

    def __init__(self, client: Client, run: str) -> None:
        self._client, self._run = client, run
        self._woken = asyncio.Event()

    async def now(self) -> Status:
        """The status as it is. Raises Failure when there is no such run."""
        return await self._client.call("status", {"run": self._run}, timeout=_PATIENCE_SECONDS)

    async def changes(self) -> AsyncIterator[Status]:
        """The status now, and whenever it has changed. Never ends by itself."""
        last: Status | None = None
        quick = 0
        while True:
            self._woken.clear()
            status = await self.now()
            if status != last:
                last = status
                yield status
            quick = 3 if self._woken.is_set() else max(0, quick - 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1 if quick else _POLL_SECONDS):
                    await self._woken.wait()
                quick = 3
            await asyncio.sleep(_SETTLE_SECONDS)

    async def hear(self, _message: object) -> None:
        """Something happened to the run."""
        self._woken.set()


@contextlib.asynccontextmanager
async def watching(client: Client, run: str) -> AsyncIterator[Watch]:
    """A Watch for the length of a block."""
    from pitstop_common.ids import run_of_job

    watch = Watch(client, run)
    subscriptions = [
        await client.bus.subscribe(f"{noun}.*.{client.target.org}.{run_of_job(run)}", watch.hear) for noun in _NOUNS
    ]
    try:
        yield watch
    finally:
        for subscription in subscriptions:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()


def job_of(status: Status, wanted: str = "") -> dict[str, Any] | None:
    """The entry of a job by key or id; with no name, of the only one. None: not there, or not the only one."""
    jobs = status["jobs"]
    if wanted:
        return next((entry for entry in jobs if wanted in (entry["job"]["key"], entry["job"]["job"])), None)
    return jobs[0] if len(jobs) == 1 else None


def address_of(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The SshAddress of a job that can be entered now."""
    if entry["job"]["status"] not in {"running", "paused"}:
        return None
    return (entry.get("report") or {}).get("ssh")


def waiting_event(entry: dict[str, Any], address: dict[str, Any]) -> dict[str, Any]:
    """What `-o json` says of a job that waits for its person: `deadline` in seconds since the epoch, or null."""
    job = entry["job"]
    return {"event": "waiting", "job": job["job"], "key": job["key"], "status": job["status"], "ssh": address,
            "deadline": job.get("deadline") or None}  # fmt: skip
