"""Publishes on their way, many at once, without a task for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import nats.errors

from pitstop_common.bus import REQUEST_TIMEOUT, Ack, Bus, Refused
from pitstop_common.errors import PitstopError, Unavailable

_LOOK: Final = 0.25

Ended = Callable[[Ack | PitstopError], None]
"""Hears what became of a publish: stored, refused, or Unavailable: nobody knows. Must not wait."""


class Underway:
    """Ends each publish, once, with the server's word; as Unavailable when that does not come in time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._sent: dict[asyncio.Future[Ack], tuple[float, Ended]] = {}
        self._watching = asyncio.create_task(self._watch())

    async def send(self, subject: str, data: bytes, headers: Mapping[str, str], ended: Ended) -> None:
        """Publish once; `ended` is called later, or at once when nothing can be sent now."""
        try:
            future = await self._bus.send(subject, data, headers)
        except nats.errors.MaxPayloadError:
            ended(Refused(0, f"{len(data)} bytes are more than the server takes"))
        except Exception as error:  # not connected now, or no more
            ended(Unavailable(f"cannot be sent: {error}"))
        else:
            self._sent[future] = asyncio.get_running_loop().time() + REQUEST_TIMEOUT, ended
            future.add_done_callback(self._heard)

    async def close(self) -> None:
        """Whatever is on its way is heard of no more."""
        sent, self._sent = self._sent, {}
        for future in sent:
            future.cancel()
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    def _heard(self, future: asyncio.Future[Ack]) -> None:
        error = None if future.cancelled() else future.exception()
        _, ended = self._sent.pop(future, (0, None))
        if ended is not None:
            ended(error if isinstance(error, PitstopError) else future.result())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            now = asyncio.get_running_loop().time()
            late = []
            for future, (due, _) in self._sent.items():
                if due > now:  # they are in the order they were sent in
                    break
                late.append(future)
            for future in late:
                _, ended = self._sent.pop(future)
                future.cancel()
                ended(Unavailable("no answer from JetStream"))
