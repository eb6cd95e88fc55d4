"""Waiting for one of two things, without cancelling either."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


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
