"""Publishes on their way, many at once, without a task for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import nats.errors

from pitstop_common.acks import Ack, Refused
from pitstop_common.bus import REQUEST_TIMEOUT, Bus
from pitstop_common.errors import PitstopError, Unavailable

_LOOK: Final = 0.25

Ended = Callable[[Ack | PitstopError], None]
"""Hears what became of a publish: stored, refused, or Unavailable: nobody knows. Must not wait."""


class Underway:
    """Ends each publish, once, with the server's word; as Unavailable when that does not come in time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._sent: dict[int, tuple[float, int, Ended]] = {}
        """By the order they were sent in: when to give up, the number of the answer, and who waits."""
        self._count = 0
        self._watching = asyncio.create_task(self._watch())

    async def send(self, subject: str, data: bytes, headers: Mapping[str, str], ended: Ended) -> None:
        """Publish once; `ended` is called later, or at once when nothing can be sent now."""
        self._count += 1
        place, due = self._count, asyncio.get_running_loop().time() + REQUEST_TIMEOUT
        self._sent[place] = due, 0, ended
        try:
            number = await self._bus.tell(subject, data, headers, partial(self._heard, place))
        except nats.errors.MaxPayloadError:
            self._heard(place, Refused(0, f"{len(data)} bytes are more than the server takes"))
        except Exception as error:  # not connected now, or no more
            self._heard(place, Unavailable(f"cannot be sent: {error}"))
        else:
            if place in self._sent:  # not answered yet
                self._sent[place] = due, number, ended

    async def close(self) -> None:
        """Whatever is on its way is heard of no more."""
        sent, self._sent = self._sent, {}
        for _, number, _ in sent.values():
            self._bus.forget(number)
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    def _heard(self, place: int, answer: Ack | PitstopError) -> None:
        if found := self._sent.pop(place, None):
            found[2](answer)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            now = asyncio.get_running_loop().time()
            late = []
            for place, (due, _, _) in self._sent.items():
                if due > now:  # they are in the order they were sent in
                    break
                late.append(place)
            for place in late:
                _, number, ended = self._sent.pop(place)
                self._bus.forget(number)
                ended(Unavailable("no answer from JetStream"))
