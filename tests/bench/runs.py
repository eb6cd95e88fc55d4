"""Whole runs per second, on the production path, against what the server could store of as many messages.

Real nats-server with the accounts of `pitstop up`, real schedulers, each a process, and a process that loads. Two rows:
with real sandbox hosts, of which only what a step does is played (the in-memory backend, and their folders in memory
where the system has such a place: ext4 is slow at making files where many were just removed; no real host ends hundreds
of jobs a second); and with a host that only claims and says the facts, which leaves the scheduler's own path. The
server stores on disk.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.bench import ceiling, decisions
from tests.bench.amounts import Amounts
from tests.bench.load import load
from tests.bench.played import POOL
from tests.bench.processes import ALL, cpu, program, served, service, stored
from tests.bench.report import Row, median, row

from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.permissions import OWNER
from pitstop_common.provision import provision

LEAST: Final = 0.40
LEAST_PLAYED: Final = 0.60
MOST_CPU: Final = 1.2
LEAST_DECISIONS: Final = 30_000
_HOSTS: Final = 2
_STANDBYS: Final = 2
_CAPACITY: Final = 500
_QUICKER: Final = 3
"""Times as many runs of a played host take as long; and what a process costs that has nothing to do counts less."""
_REAL: Final = "default"


class Measured:
    """One kind of load, round by round."""

    def __init__(self, pool: str, times: int = 1) -> None:
        """`times` as many runs in a round."""
        self.pool, self.times = pool, times
        self.rates: list[float] = []
        self.stored: list[float] = []
        self.cost: list[dict[str, float]] = []

    def cpu(self, name: str) -> float:
        """Milliseconds a run."""
        return median([one[name] for one in self.cost])

    def each(self) -> str:
        """CPU ms per run of each name."""
        return ", ".join(f"{name} {self.cpu(name):.2f}" for name in self.cost[0])


class Bench:
    """What there is to measure on."""

    def __init__(self, folder: Path, server: EmbeddedServer, bus: Bus, amounts: Amounts) -> None:
        self.folder, self.server, self.bus, self.amounts = folder, server, bus, amounts
        self.pids = {"nats-server": [server.pid]}
        self.real, self.played, self.three = Measured(_REAL), Measured(POOL, _QUICKER), Measured(POOL, _QUICKER)
        self.ceilings: list[float] = []
        self.decisions: list[float] = []
        self._standbys = 0

    async def warm_up(self) -> None:
        """The first of everything."""
        for pool in (_REAL, POOL):
            runs = max(20, self.amounts.runs // 10)
            await load(self.server.url(OWNER), self.bus, runs, pool, self.amounts.settled)

    async def round(self) -> None:
        """One of each."""
        await self.ceiling()
        self.decisions.append(await decisions.measure(self.server.url(ALL), self.amounts.decided))
        await self._runs(self.real, {})
        await self._runs(self.played, {})
        async with contextlib.AsyncExitStack() as stack:
            pids = [await stack.enter_async_context(self._standby()) for _ in range(_STANDBYS)]
            await self._runs(self.three, {"scheduler": [*self.pids["scheduler"], *pids]})

    async def ceiling(self) -> None:
        """What the server can take."""
        self.ceilings.append(
            await ceiling.measure(self.server.url(ALL), self.amounts.ceiling, self.amounts.publishers)
        )  # fmt: skip

    def _standby(self) -> contextlib.AbstractAsyncContextManager[int]:
        self._standbys += 1
        return service("scheduler", self.folder / f"standby-{self._standbys}", self.server)

    async def _runs(self, measured: Measured, more: Mapping[str, list[int]]) -> None:
        pids, runs = {**self.pids, **more}, self.amounts.runs * measured.times
        before, used = await stored(self.bus), cpu(pids)
        measured.rates.append(
            await load(self.server.url(OWNER), self.bus, runs, measured.pool, self.amounts.settled)
        )  # fmt: skip
        measured.stored.append((await stored(self.bus) - before) / runs)
        measured.cost.append({name: (after - used[name]) / runs for name, after in cpu(pids).items()})

    def rows(self) -> list[Row]:
        """The result."""
        raw = median(self.ceilings)
        other = f"ceiling {raw:,.0f} messages/s ({self.amounts.publishers} publishers)"
        rates = ", ".join(f"{one:,.0f}" for one in self.ceilings)
        one, three = self.played.cpu("scheduler"), self.three.cpu("scheduler")
        return [
            self._row("whole runs", self.real, raw, LEAST, f"{other}; {_HOSTS} real hosts; ceilings: {rates}"),
            self._row("whole runs, played hosts", self.played, raw, LEAST_PLAYED, f"{other}; one host says facts only"),
            row("CPU per run, 3 schedulers to 1", three, one, most=MOST_CPU,
                note=f"of all scheduler processes; {median(self.three.rates):.0f} runs/s with 3; {self.three.each()}"),
            row("facts decided on and committed", median(self.decisions), raw, least=LEAST_DECISIONS, of="ours",
                unit="/s", note=f"other: {other}; rounds: {', '.join(f'{one:,.0f}' for one in self.decisions)}/s"),
        ]  # fmt: skip

    def _row(self, name: str, measured: Measured, raw: float, least: float, note: str) -> Row:
        messages = median(measured.stored)
        text = (
            f"{messages:.1f} messages stored per run; other: ceiling / messages; {note}; "
            f"CPU ms per run: {measured.each()}; rounds: {', '.join(f'{one:.0f}' for one in measured.rates)} runs/s"
        )
        return row(name, median(measured.rates), raw / messages, least=least, unit="/s", note=text)  # fmt: skip


async def measure(folder: Path, amounts: Amounts) -> list[Row]:
    """Ceiling and runs by turns. The ratio is of whole runs to those that the stored messages would allow."""
    folder.mkdir()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pitstop-bench-", dir=memory) as hosts:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(served(folder))
            bus = await stack.enter_async_context(connected(server.url(ALL), "bench"))
            await provision(bus)
            await ceiling.make_stream(bus)
            bench = Bench(folder, server, bus, amounts)
            pids = bench.pids
            pids["scheduler"] = [await stack.enter_async_context(service("scheduler", folder / "scheduler", server))]
            pids["hosts"] = [
                await stack.enter_async_context(_host(Path(hosts, str(number)), server)) for number in range(_HOSTS)
            ]
            played = await stack.enter_async_context(program("tests.bench.played", server.url("sandbox")))
            pids["played host"] = [played.pid]
            await bench.warm_up()
            for _ in range(amounts.rounds):
                await bench.round()
            await bench.ceiling()
            return bench.rows()


def _host(folder: Path, server: EmbeddedServer) -> contextlib.AbstractAsyncContextManager[int]:
    return service("sandbox", folder, server, sandbox="fake", capacity=_CAPACITY, jobs_at_stop="end")
