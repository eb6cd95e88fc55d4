"""What a part of the fuzzer is, and how one is driven."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

import msgspec
from tests.fuzz.mutate import Mutator
from tests.fuzz.watch import Amount, Fault, Watch, amount, grown

_SETTLE_EVERY: Final = 200
"""Conversations."""
_WARM: Final = 0.25
"""Of all packets, before the first look at what is there."""
_SETTLE_WITHIN: Final = 120.0


class Part(Protocol):
    """Something that is reached by bytes."""

    async def converse(self, mutator: Mutator) -> int:
        """One conversation; how many packets were sent."""

    async def settle(self) -> None:
        """Until nothing of the conversations so far is under way."""

    def check(self) -> None:
        """Raises AssertionError when somebody got where nobody should."""

    def reached(self) -> dict[str, int]:
        """How deep the conversations went: what would be 0 if they ended at once."""


Make = Callable[[Path], AbstractAsyncContextManager[Part]]


class Done(msgspec.Struct):
    """What a part came to."""

    name: str
    packets: int
    conversations: int
    seconds: float
    reached: dict[str, int]
    memory: int
    """Bytes of resident memory more than after the first quarter."""


async def fuzz(name: str, make: Make, folder: Path, packets: int, seed: int, only: int = -1) -> Done:
    """So many packets into a part. Raises Fault with the conversation that did it: `only` repeats that one."""
    watch = Watch()
    begun, sent, number = time.monotonic(), 0, max(0, only)
    before: Amount | None = None
    with watch.watching():
        async with make(folder) as part:
            while sent < packets:
                watch.where = f"{name}:{number} of seed {seed}"
                try:
                    sent += await part.converse(Mutator(seed, name, number))
                except Exception as error:
                    watch.faults.append(f"{watch.where}: {''.join(traceback.format_exception(error))}")
                watch.check()
                number += 1
                if only >= 0:
                    break
                if number % _SETTLE_EVERY == 0:
                    await _settled(part, watch)
                if before is None and sent >= packets * _WARM:
                    await _settled(part, watch)
                    before = amount()
            await _settled(part, watch)
            after, reached = amount(), part.reached()
    watch.check()
    if before is not None and (left := grown(before, after)):
        raise Fault(f"{name}, seed {seed}: left after {sent} packets: {left}")
    memory = after.memory - before.memory if before is not None else 0
    return Done(name, sent, number - max(0, only), time.monotonic() - begun, reached, memory)


async def _settled(part: Part, watch: Watch) -> None:
    try:
        async with asyncio.timeout(_SETTLE_WITHIN):
            await part.settle()
    except TimeoutError:
        raise Fault(
            f"up to {watch.where}: does not end: {[task.get_stack() for task in asyncio.all_tasks()]}"
        ) from None
    part.check()
    watch.check()
