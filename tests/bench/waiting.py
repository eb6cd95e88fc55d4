"""What a long queue costs: `python -m tests.bench.waiting ORGS JOBS` prints a `Costs` as JSON.

A slot becomes free and a run comes: a tick of two facts, one end and one grant. With jobs waiting in every org the
grant goes to the one whose turn it is, and the new run waits; with an empty queue the new run has it. Pure: decide, the
bytes of its record, fold.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from tests.bench.amounts import Amounts
from tests.bench.decisions import accepted
from tests.bench.played import HOST, INCARNATION, POOL, facts_of
from tests.bench.processes import answer_of
from tests.bench.report import Row, median, row

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot import frames, freeze
from pitstop_scheduler.tick import Stored

MOST: Final = 1.5
MOST_BYTES: Final = 128
_RUNNING: Final = 64
_GRANTS: Final = 200
"""By turns, one with the queue and one without."""
_SECONDS: Final = 300
_NOW: Final = 1_795_000_000.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds a grant; bytes a waiting job. `logged`: in the decision log, `memory`: resident."""

    full: float
    empty: float
    logged: float
    snapshot: float
    memory: float


async def measure(amounts: Amounts) -> list[Row]:
    """In a process of their own."""
    orgs, jobs = amounts.waiting_orgs, amounts.waiting
    said = await answer_of(_SECONDS, "tests.bench.waiting", str(orgs), str(jobs))
    costs = msgspec.json.decode(said, type=Costs)
    queue = f"{jobs:,} jobs of {orgs:,} orgs wait"
    return [
        row("time per grant, long queue to empty", costs.full, costs.empty, most=MOST, unit="us",
            note=f"{queue}; one end, one request and one grant a tick: decide, encode, fold"),
        row("bytes per waiting job, snapshot", costs.snapshot, MOST_BYTES, most=MOST_BYTES, of="ours", unit="B",
            note=f"other: the bound; {queue}; {costs.logged:.0f} B in the log, {costs.memory:.0f} B in memory"),
    ]  # fmt: skip


class World:
    """A scheduler's fold, and who speaks to it."""

    def __init__(self, slots: int) -> None:
        self.state = State()
        self.logged = self.runs = self._head = self._sequence = 0
        self._running: list[m.JobFinished] = []
        self.commit((c.Defaults(0, 0, 0), c.Room(HOST, INCARNATION, POOL, slots, 1)))

    def commit(self, changes: tuple[c.AnyChange, ...], watermark: int = 0, now: float = _NOW) -> int:
        """Fold a record. Its bytes."""
        self._head += 1
        record = c.Record(1, self._head, "bench", watermark, now, self._head - 1, changes, self._head - 1)
        data = c.encode_record(record)
        self.logged += len(data)
        fold(self.state, c.decode_record(data), self._head)  # as every scheduler but the owner has it
        return len(data)

    def tick(self, facts: list[m.Fact]) -> None:
        """Decide on facts."""
        stored = []
        for fact in facts:
            self._sequence += 1
            stored.append(Stored(self._sequence, _NOW + self._sequence / 1e3, fact))
        decision = decide(self.state, stored, self.state.now)
        self.commit(decision.changes, decision.watermark, decision.now)
        for change in decision.changes:
            if isinstance(change, c.Granted):
                self._claim(change)

    def request(self, org: str) -> m.Fact:
        """A run comes."""
        self.runs += 1
        return accepted(self.runs, org, f"REQ:{self.runs}")

    def end(self) -> m.Fact:
        """The oldest running job ends."""
        return self._running.pop(0)

    def _claim(self, granted: c.Granted) -> None:
        run = self.state.runs[self.state.jobs[granted.job].run]
        start = m.Start(org=run.org, run=run.id, job=granted.job, attempt=granted.attempt, cause="start")
        self.commit((c.Claimed(granted.job, granted.attempt, HOST, INCARNATION), c.Ready(granted.job, "ready")),
                    self._sequence, self.state.now)  # fmt: skip
        self._running += [fact for fact in facts_of(start) if isinstance(fact, m.JobFinished)]


def _grant(world: World, org: str) -> float:
    facts = [world.end(), world.request(org)]
    begun = time.perf_counter()
    world.tick(facts)
    return (time.perf_counter() - begun) * 1e6


def _compare(orgs: int, jobs: int) -> Costs:
    names = [f"org-{number}" for number in range(orgs)]
    empty, full = World(_RUNNING), World(_RUNNING)
    for world in (empty, full):
        world.tick([world.request(names[number % orgs]) for number in range(_RUNNING)])
    before, logged, memory = _snapshot(full), full.logged, _memory()
    for at in range(0, jobs, 1000):
        full.tick([full.request(names[number % orgs]) for number in range(at, min(jobs, at + 1000))])
    waiting = len(full.state.jobs) - _RUNNING
    grown = (_snapshot(full) - before, full.logged - logged, _memory() - memory)
    gc.freeze()
    took: dict[World, list[float]] = {empty: [], full: []}
    for number in range(_GRANTS):
        for world, times in took.items():
            times.append(_grant(world, names[number % orgs]))
    return Costs(
        full=median(took[full]),
        empty=median(took[empty]),
        snapshot=grown[0] / waiting,
        logged=grown[1] / waiting,
        memory=grown[2] / waiting,
    )


def _snapshot(world: World) -> int:
    try:
        return sum(map(len, frames(freeze(world.state))))
    finally:
        world.state.unpin()


def _memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(msgspec.json.encode(_compare(int(sys.argv[1]), int(sys.argv[2]))).decode())
