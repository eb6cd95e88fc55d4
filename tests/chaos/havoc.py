"""What happens to the system, at random: kills, stops, cuts. The choices follow from the seed, their effects do not."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Final

from tests.chaos.cluster import NODES
from tests.chaos.disk import full_streams
from tests.chaos.load import Loader
from tests.chaos.processes import Service, System

SERVER_REST: Final = 4.0
"""Seconds between a start of nats-server and its next kill: two kills in a row are one long outage."""


EVERYTHING: Final = {
    "kill owner": 20, "kill scheduler": 15, "kill janitor": 8, "kill host": 16, "kill server": 14, "stop owner": 8,
    "stop scheduler": 4, "stop janitor": 4, "stop host": 4, "cut": 8, "hold": 14, "slow": 8, "limits": 4,
    "starts again": 12, "full disk": 5, "full streams": 5,
}  # fmt: skip
"""How often each is chosen, of their sum."""
CLUSTER: Final = {
    "kill owner": 12, "kill scheduler": 8, "kill janitor": 6, "kill host": 12, "stop owner": 6, "cut": 6, "hold": 8,
    "limits": 4, "starts again": 8, "kill node": 16, "isolate node": 10, "stop node": 8,
}  # fmt: skip
"""On three servers: never is more than one of them away."""
HOSTS: Final = {"kill host": 60, "kill server": 20, "cut": 10, "starts again": 10}

_DEED: Final = ContextVar("deed", default="")


class Havoc:
    """Does one thing after the other until told that it is enough."""

    def __init__(
        self, system: System, loader: Loader, chance: random.Random, gap: float, deeds: dict[str, int]
    ) -> None:
        """`gap`: seconds between two acts, on average."""
        self._deeds = deeds if system.disk.pid else {deed: n for deed, n in deeds.items() if deed != "full disk"}
        self.system, self._loader, self._chance, self._gap = system, loader, chance, gap
        self.acts: list[str] = []
        self.counts: Counter[str] = Counter()
        """How often each deed was begun."""
        self.dethroned: list[float] = []
        """When an owner was killed or stopped (seconds since the epoch)."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._server_rests = 0.0
        self._busy: set[str] = set()

    async def reign(self, kills: int, enough: Callable[[], bool]) -> None:
        """Until that many kills are done, each deed at least once, and `enough` says so too; then until all that was
        broken is mended."""
        await self._loader.listen()
        while self.system.kills < kills or self._missing() or not enough():
            await asyncio.sleep(self._chance.uniform(0.3, 1.7) * self._gap)
            self._begin()
            for task in [task for task in self._under_way if task.done()]:
                self._under_way.discard(task)
                task.result()
        await asyncio.gather(*self._under_way)

    def _begin(self) -> None:
        deed = self._chance.choices(list(self._deeds), list(self._deeds.values()))[0]
        missing = self._missing()
        if missing and self._chance.random() < 0.3:
            deed = self._chance.choice(missing)
        self._under_way.add(asyncio.ensure_future(self._do(deed)))

    async def _do(self, deed: str) -> None:
        _DEED.set(deed)
        do: Callable[[], Coroutine[None, None, None]] = getattr(self, f"_{deed.replace(' ', '_')}")
        await do()

    def _missing(self) -> list[str]:
        """What has not been done yet."""
        return [deed for deed in self._deeds if not self.counts[deed]]

    def _free(self, kind: str) -> Service | None:
        """One that nothing happens to now. One of each kind is left alone, or nothing would ever happen at all."""
        free = [one for one in self.system.of(kind) if one.name not in self._busy and one.ready]
        return self._chance.choice(free) if len(free) > 1 else None

    async def _kill_owner(self) -> None:
        owner = self.system.owner()
        if owner.name not in self._busy and owner.ready:
            self.dethroned.append(time.time())
            await self._kill(owner)

    async def _kill_scheduler(self) -> None:
        await self._kill(self._free("scheduler"))

    async def _kill_janitor(self) -> None:
        await self._kill(self._free("janitor"))

    async def _kill_host(self) -> None:
        await self._kill(self._free("sandbox"))

    async def _kill(self, service: Service | None) -> None:
        if service is None:
            return
        self._busy.add(service.name)
        self._say(f"kill {service.name}")
        await service.kill()
        await asyncio.sleep(self._chance.uniform(0.05, 1.5))
        service.start(self.system.token)
        await service.until_ready()
        self._busy.discard(service.name)

    async def _kill_server(self) -> None:
        if self._server_rests > time.monotonic() or "server" in self._busy:
            return
        self._busy.add("server")
        seconds = self._chance.uniform(0.3, 2.0)
        self._say(f"kill nats-server for {seconds:.1f} s")
        await self.system.kill_server(seconds)
        self._server_rests = time.monotonic() + SERVER_REST
        self._busy.discard("server")

    async def _kill_node(self) -> None:
        await self._away("kill nats-server", 0.5, 4.0, self.system.kill_node)

    async def _stop_node(self) -> None:
        """Longer than an election: it wakes up as the leader that it was."""
        await self._away("stop nats-server", 6.0, 10.0, self.system.stop_node)

    async def _isolate_node(self) -> None:
        silently = self._chance.random() < 0.5
        await self._away("cut off nats-server", 6.0, 10.0, partial(self.system.isolate, silently=silently))

    async def _away(
        self, what: str, least: float, most: float, do: Callable[[int, float], Coroutine[None, None, None]]
    ) -> None:
        if self._server_rests > time.monotonic() or "server" in self._busy:
            return
        self._busy.add("server")
        number, seconds = self._chance.randrange(NODES), self._chance.uniform(least, most)
        self._say(f"{what} n{number} for {seconds:.1f} s")
        await do(number, seconds)
        self._server_rests = time.monotonic() + SERVER_REST
        self._busy.discard("server")

    async def _stop_owner(self) -> None:
        owner = self.system.owner()
        if owner.name not in self._busy and owner.ready:
            self.dethroned.append(time.time())
            await self._stop(owner)

    async def _stop_scheduler(self) -> None:
        await self._stop(self._free("scheduler"))

    async def _stop_janitor(self) -> None:
        await self._stop(self._free("janitor"))

    async def _stop_host(self) -> None:
        await self._stop(self._free("sandbox"))

    async def _stop(self, service: Service | None) -> None:
        if service is None:
            return
        self._busy.add(service.name)
        seconds = self._chance.uniform(3.0, 5.0)
        self._say(f"stop {service.name} for {seconds:.1f} s")
        service.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        service.signal(signal.SIGCONT)
        self._busy.discard(service.name)

    def _anyone(self) -> Service:
        """The owner of the log half of the time: it has the most to lose."""
        return self.system.owner() if self._chance.random() < 0.5 else self._chance.choice(self.system.services)

    async def _cut(self) -> None:
        service = self._anyone()
        self._say(f"cut {service.name} off for a moment")
        service.proxy.cut()

    async def _hold(self) -> None:
        service = self._anyone()
        seconds = self._chance.choice((0.3, 0.8, 1.5, 4.0))  # with and without time for another to take over
        self._say(f"hold all bytes of {service.name} for {seconds:.1f} s, then cut")
        service.proxy.hold()
        await asyncio.sleep(seconds)
        service.proxy.cut()
        service.proxy.release()

    async def _slow(self) -> None:
        service = self._anyone()
        seconds, rate = self._chance.uniform(1.0, 4.0), self._chance.choice((5_000, 20_000, 100_000))
        self._say(f"{service.name} gets {rate} bytes a second for {seconds:.1f} s")
        service.proxy.slow(rate)
        await asyncio.sleep(seconds)
        service.proxy.slow(0)

    async def _full_disk(self) -> None:
        """Until an operator makes room, and starts the server again: it does not write to a stream that failed once."""
        if self._server_rests > time.monotonic() or "server" in self._busy:
            return
        self._busy.add("server")
        seconds = self._chance.uniform(0.5, 2.0)
        self._say(f"the disk is full for {seconds:.1f} s, then nats-server is killed")
        await asyncio.to_thread(self.system.disk.fill)
        await asyncio.sleep(seconds)
        await self.system.kill_server(0.2)
        self._server_rests = time.monotonic() + SERVER_REST
        self._busy.discard("server")

    async def _full_streams(self) -> None:
        if "streams" in self._busy:
            return
        self._busy.add("streams")
        seconds = self._chance.uniform(0.5, 2.0)
        self._say(f"no stream takes a message for {seconds:.1f} s")
        await full_streams(self._loader.bus, seconds)
        self._busy.discard("streams")

    async def _limits(self) -> None:
        self._say("other limits")
        await self._loader.limits()

    async def _starts_again(self) -> None:
        self._say("starts are delivered again")
        await self._loader.starts_again()

    def _say(self, what: str) -> None:
        self.counts[_DEED.get()] += 1
        self.acts.append(f"{time.monotonic():.2f} {what}")
