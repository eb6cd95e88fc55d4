"""Is the engine there, and is it still the one that was? A restart breaks the stream of its events; a ping that nobody
answers tells that it hangs, and then everything that waits for it is let go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final

from pitstop_sandbox.backends.docker.container import FOLDER, SANDBOX
from pitstop_sandbox.backends.docker.engine import NO_CONNECTION, Engine, EngineError
from pitstop_sandbox.backends.port import BackendError

log = logging.getLogger(__name__)

PING_EVERY: Final = 3.0
PING_SECONDS: Final = 15.0
"""An engine that has not answered a ping for so long hangs. With PING_EVERY: how long a call can hang at most."""
BACK_SECONDS: Final = 20.0
"""A job that begins while the engine is restarted waits so long for it."""
DEATH_SECONDS: Final = 5.0
"""For the engine to say that a container has ended, or to break off."""
END_SECONDS: Final = 15.0
"""An engine that is being stopped ends its containers first, and breaks off when the last has ended."""
_AGAIN: Final = 0.2
_MOST_DEATHS: Final = 1000


class Pulse:
    """Of one engine. Begins to watch at its first use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._there: bool | None = None
        """None: not known yet."""
        self._said: dict[str, set[str]] = {}
        """What it said of the end of containers, by their folders; the newest last."""
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Watch it. Idempotent."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._ping())]

    async def there(self, within: float = BACK_SECONDS) -> None:
        """Returns when the engine answers. Raises EngineError `engine_lost`."""
        self.begin()
        try:
            async with asyncio.timeout(within):
                while not self._there:
                    await self._news.wait()
        except TimeoutError:
            text = (
                f"no Docker Engine has answered at {self._engine.host} for {within:g} s: is it running? `docker info`"
            )
            raise EngineError("engine_lost", text, NO_CONNECTION) from None

    async def why(self, folder: Path, reason: str) -> BackendError:
        """Of a sandbox that has died, with what its holder saw: `engine_lost` when its engine went away, or hangs;
        else `sandbox_lost`."""
        self.begin()
        said = await self._until(DEATH_SECONDS, folder, "die")
        if "kill" in said:
            await self._until(END_SECONDS, folder, "")
        if self._there:
            by = ", ended through the engine" if "kill" in said else ""
            return BackendError("sandbox_lost", f"the sandbox died: {reason}{by}")
        text = (
            f"the Docker Engine at {self._engine.host} was stopped or restarted, or hangs, and the job's container "
            f"ended ({reason}). Run it again. With `live-restore` in the engine's daemon.json jobs outlive restarts."
        )
        return BackendError("engine_lost", text)

    async def _until(self, seconds: float, folder: Path, word: str) -> set[str]:
        """Until the engine says this of a container, or breaks off. What it has said of it."""
        said: set[str] = set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._there is not False and word not in (said := self._said.get(str(folder), said)):
                    await self._news.wait()
        return said

    async def aclose(self) -> None:
        """Watch no longer."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(EngineError):
                async with contextlib.aclosing(self._engine.deaths(SANDBOX)) as deaths:
                    async for word, labels in deaths:
                        self._hear(word, labels)
            if self._there:
                log.warning("the Docker Engine at %s broke off", self._engine.host)
            self._there = False
            self._wake()
            await asyncio.sleep(_AGAIN)

    def _hear(self, word: str, labels: dict[str, str]) -> None:
        if word:
            self._said.setdefault(labels.get(FOLDER, ""), set()).add(word)
            while len(self._said) > _MOST_DEATHS:
                del self._said[next(iter(self._said))]
        else:
            if self._there is False:
                log.warning("the Docker Engine at %s is there again", self._engine.host)
            self._there = True
            self._said.clear()
        self._wake()

    async def _ping(self) -> None:
        while True:
            with contextlib.suppress(EngineError):
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        await self._engine.ping()
                except TimeoutError:
                    self._engine.cut(f"the engine at {self._engine.host} does not answer: it hangs")
            await asyncio.sleep(PING_EVERY)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
