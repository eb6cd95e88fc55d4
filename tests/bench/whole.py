"""The system as `pitstop up` starts it: requests on its NATS, and what is heard of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection
from typing import Any

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.messages import Message, decode_fact
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import IN

ORG = "local"


class Requests:
    """Publishes requests and follows the facts of what becomes of them."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._facts = Pull(bus, IN, reader(subjects.facts_of(0)))

    async def publish(self, *commands: str, **fields: Any) -> str:
        """One message, as any program would send it. Returns the request's id."""
        request = uuid.uuid4().hex
        body = {"id": request, "org": ORG, "project": "bench", "actor": "bench",
                "steps": [{"run": command} for command in commands], **fields}  # fmt: skip
        await self.bus.nc.publish(subjects.RUN_REQUESTED, json.dumps(body).encode())
        return request

    async def until(self, request: str, holds: Callable[[Message], bool]) -> Message:
        """The first fact of a request that fits, among those not yet read."""
        return await self.any_of((request,), holds)

    async def any_of(self, requests: Collection[str], holds: Callable[[Message], bool]) -> Message:
        """The same for several."""
        while True:
            for item in await self._facts.next(timeout=10, most=1):
                fact: Message = decode_fact(item.data)
                if fact.request in requests and holds(fact):
                    return fact

    async def close(self) -> None:
        """Stop following."""
        await self._facts.close()
