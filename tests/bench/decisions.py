"""Decide and commit alone: `python -m tests.bench.decisions URL RUNS` prints the facts per second.

A decision is a fact of IN that is read, decided on, and folded after its record was committed to a real log on a real
server. The facts are those of whole runs, in the order in which a busy system hears them, a thousand a record; nothing
is put out.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Iterator
from typing import Final

import uvloop
from tests.bench.played import CAPACITY, HOST, INCARNATION, POOL, facts_of
from tests.bench.processes import answer_of

from pitstop_common import ids
from pitstop_common import messages as m
from pitstop_common.bus import connected
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.log import Log
from pitstop_scheduler.tick import Stored

_ORGS: Final = 16
_A_TICK: Final = 1000
_TOGETHER: Final = 160
"""Runs that come together; each tick holds those of six such flocks, one at each stage."""
_SECONDS: Final = 120
_NOW: Final = 1_795_000_000.0


async def measure(url: str, runs: int) -> float:
    """Facts per second, in a process of their own."""
    return float(await answer_of(_SECONDS, "tests.bench.decisions", url, str(runs)))


def room() -> m.SandboxRoom:
    """A host with room for everything."""
    return m.SandboxRoom(id="room", time="", org="_", run="_", host=HOST, incarnation=INCARNATION, pool=POOL,
                         capacity=CAPACITY, serial=1)  # fmt: skip


def accepted(number: int, org: str, source: str) -> m.RunAccepted:
    """A small run, with ids as they are: nothing in them repeats."""
    chance = random.Random(number)
    request = f"{chance.getrandbits(128):032x}"
    run = ids.run_id(org, request)
    return m.RunAccepted(
        id=f"accepted.{run}.{source}", time="2026-11-21T00:00:00.000Z", org=org, run=run, project="bench",
        request=request, actor="ada",
        cause=source, jobs=(m.AcceptedJob(job=f"{run}-1", key="job", pool=POOL),), source=source,
        trace=f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01",
    )  # fmt: skip


def whole_run(number: int, org: str) -> list[m.Fact]:
    """All facts of a run, in order."""
    first = accepted(number, org, f"REQ:{number}")
    start = m.Start(org=org, run=first.run, job=first.jobs[0].job, attempt=1, project=first.project,
                    request=first.request, cause="start")  # fmt: skip
    return [first, *facts_of(start)]


def _in_order(runs: int) -> Iterator[m.Fact]:
    yield room()
    flocks = [[whole_run(number, f"org-{number % _ORGS}") for number in range(at, min(at + _TOGETHER, runs))]
              for at in range(0, runs, _TOGETHER)]  # fmt: skip
    stages = len(flocks[0][0])
    for tick in range(len(flocks) + stages - 1):
        for stage in range(stages):
            if 0 <= tick - stage < len(flocks):
                yield from (facts[stage] for facts in flocks[tick - stage])


async def _decide(url: str, runs: int) -> float:
    bodies = [m.encode(fact) for fact in _in_order(runs)]
    async with connected(url, "bench-decisions") as bus:
        log = Log(bus, partition=9)
        log.state.head = await log.head()
        begun = time.perf_counter()
        numbers = itertools.count(1)
        for at in range(0, len(bodies), _A_TICK):
            facts = [Stored(at + place + 1, _NOW + at / 1e6, m.decode_fact(body))
                     for place, body in enumerate(bodies[at : at + _A_TICK])]  # fmt: skip
            decision = decide(log.state, facts, log.state.now)
            await log.append(c.Record(1, next(numbers), f"bench-{begun}", decision.watermark, decision.now,
                                      log.state.head, decision.changes))  # fmt: skip
        taken = time.perf_counter() - begun
        assert len(log.state.known) >= runs - 2 * _A_TICK and not log.state.queues, "the runs have not ended"
    return len(bodies) / taken


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_decide(sys.argv[1], int(sys.argv[2]))))
