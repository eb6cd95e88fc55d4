"""Waiting for one of two things, without cancelling either; and work that a channel leaves to itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


async def either(future: asyncio.Future[Any], event: asyncio.Event, timeout: float | None = None) -> None:
    """Until one of both, or the time limit, seconds."""
    happening = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({future, happening}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        happening.cancel()
        await asyncio.gather(happening, return_exceptions=True)


async def passed(event: asyncio.Event, seconds: float) -> bool:
    """Did it happen within that time?"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def track(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, object]) -> None:
    """Begin work, and have it among `tasks` until it ends."""
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_report)


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a channel broke", exc_info=error)
