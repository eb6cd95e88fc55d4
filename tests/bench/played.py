"""Sandbox hosts that run nothing: they claim starts as a host does, and say the facts of a run, or of a session.

`python -m tests.bench.played URL`: a process that plays one host of pool `played`, with room for everything. It shows
the scheduler's production path alone. In project `sessions` jobs wait for their person, who is inside; in
`left` for one who does not come.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from typing import Any, Final

import uvloop

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.errors import WrongLastSequence
from pitstop_common.messages import JobReport, Start, StepReport
from pitstop_common.pull import Delivery, Pull
from pitstop_common.streams import WORK, host_consumer, pool_consumer
from pitstop_common.telemetry import headers, trace_of

HOST: Final = "played"
POOL: Final = "played"
SESSIONS: Final = "sessions"
LEFT: Final = "left"
INCARNATION: Final = "1"
CAPACITY: Final = 1_000_000
_REPORT: Final = JobReport(steps=(StepReport(index=1, name="true", result="success", exit_code=0, attempts=1),))


def facts_of(start: Start) -> Iterator[m.Fact]:
    """What a host says of an attempt, in order: a run of one step, and what its project does then."""
    serials = itertools.count(1)

    def fact(kind: type[m.HostFact], **fields: Any) -> Any:
        serial = next(serials)
        return kind(
            id=f"{start.job}.{start.attempt}.{serial}", time="2026-11-21T00:00:00Z", org=start.org, run=start.run,
            project=start.project, request=start.request, job=start.job, attempt=start.attempt, cause=start.cause,
            host=HOST, incarnation=INCARNATION, serial=serial, **fields,
        )  # fmt: skip

    yield fact(m.JobClaimed)
    yield fact(m.SandboxReady, backend="fake")
    yield fact(m.StepStarted, step=1, name="true")
    yield fact(m.StepFinished, step=1, name="true", result="success", exit_code=0, report=_REPORT)
    if start.project not in {SESSIONS, LEFT}:
        yield fact(m.JobFinished, result="success", report=_REPORT)
        return
    yield fact(m.JobPaused, reason="at_end", report=_REPORT)
    if start.project == SESSIONS:
        yield fact(m.SshConnected, session=f"s-{start.job}", user="ada", fingerprint="SHA256:bench")


class Host:
    """One host. Whatever it is told to stop has ended before."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._claims = Bucket(bus, "claims")
        self._tasks: set[asyncio.Task[None]] = set()

    async def announce(self) -> None:
        """There is room."""
        room = m.SandboxRoom(id=f"{HOST}.{INCARNATION}.room", time="", org="_", run="_", host=HOST,
                             incarnation=INCARNATION, pool=POOL, capacity=CAPACITY, serial=1)  # fmt: skip
        await self._say(room, "")

    async def beat(self) -> None:
        """It lives."""
        await Bucket(self._bus, "hosts").put(HOST, m.encode(m.Heartbeat(
            host=HOST, incarnation=INCARNATION, pool=POOL, capacity=CAPACITY, beat=1, jobs=(),
        )))  # fmt: skip

    async def take(self) -> None:
        """Starts, each in a task of its own. Ends by cancellation only."""
        pull = Pull(self._bus, WORK, pool_consumer(POOL))
        while True:
            for delivery in await pull.next():
                self._begin(self._run(delivery))

    async def obey(self) -> None:
        """Commands: a job that is told to stop ends. Ends by cancellation only."""
        pull = Pull(self._bus, WORK, host_consumer(HOST))
        while True:
            for delivery in await pull.next():
                self._begin(self._stop(delivery))

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, delivery: Delivery) -> None:
        start = m.decode_start(delivery.data)
        trace = trace_of(delivery.headers)
        try:
            claim = m.Claim(host=HOST, incarnation=INCARNATION, token=start.cause)
            await self._claims.create(f"{start.job}.{start.attempt}", m.encode(claim))
        except WrongLastSequence:
            await delivery.ack()  # it was here before
            return
        facts = facts_of(start)
        await self._say(next(facts), trace)
        await delivery.ack()
        await asyncio.gather(*(self._say(fact, trace) for fact in facts))

    async def _stop(self, delivery: Delivery) -> None:
        command = m.decode_command(delivery.data)
        if isinstance(command, m.Stop):
            await self._say(m.JobFinished(
                id=f"{command.job}.{command.attempt}.stopped", time="", org=command.org, run=command.run,
                job=command.job, attempt=command.attempt, host=HOST, incarnation=INCARNATION, result=command.result,
            ), "")  # fmt: skip
        await delivery.ack()

    async def _say(self, fact: m.Message, trace: str) -> None:
        subject = subjects.about(str(fact.__struct_config__.tag), fact.org, fact.run)
        await self._bus.store_surely(subject, m.encode(fact), headers(fact.id, trace))


async def _play(url: str) -> None:
    async with connected(url, "bench-host") as bus:
        host = Host(bus)
        await host.announce()
        await host.beat()
        loops = [asyncio.create_task(loop) for loop in (host.take(), host.obey())]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_play(sys.argv[1]))
