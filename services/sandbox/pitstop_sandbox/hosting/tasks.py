"""Tasks of a host: none brings down the others, and all of them end when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

log = logging.getLogger(__name__)

Work = Coroutine[Any, Any, None]

_BEGIN_AGAIN: Final = 1.0
_CANCEL_AGAIN: Final = 1.0


async def alone(work: Work) -> None:
    """A failure of one message or job is no failure of the host: it is logged."""
    try:
        await work
    except Exception:
        log.exception("handling a message failed")


async def for_ever(loop: Callable[[], Work]) -> None:
    """A loop that fails is begun again. Ends only by cancellation."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("a loop of the host failed, and is begun again")
            await asyncio.sleep(_BEGIN_AGAIN)


async def within(seconds: float, work: Work) -> None:
    """As much of it as can be done in that time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are done: now and then one loses a cancellation to `asyncio.wait_for` in a library,
    which had its answer in the same moment."""
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=_CANCEL_AGAIN)
