"""One collector per kind of garbage. Each works alone: what one cannot do stops no other."""

from __future__ import annotations

from typing import Protocol

from pitstop_janitor.model import Swept


class Collector(Protocol):
    """Something that looks for one kind of garbage and says what it found, by message only."""

    name: str

    async def due(self) -> bool:
        """Returns when a pass should run: true; or after a short while without cause: false. Cancellation is safe."""

    async def sweep(self) -> Swept:
        """One pass. Repeating it is harmless, whoever else runs it too. Any error means: try again later."""

    async def close(self) -> None:
        """Give back what was taken and not dealt with. Idempotent."""
