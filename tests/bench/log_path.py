"""The log path: what a step prints, until `pitstop logs -f` has shown it, beside plain JetStream with the same lines.

Ours goes from the step's pipe by holder, spool, host, LOGS and scheduler to a process that prints; the ceiling stores
the same lines in the same chunks, one on its way at a time, on a server of its own, and a consumer takes each apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.whole import ORG, Requests

from pitstop_common.bus import connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.ids import run_id
from pitstop_common.limits import MAX_LOG_CHUNK
from pitstop_common.messages import LogChunk, decode_chunk, encode

MOST_MS: Final = 150
_LEAST: Final = 0.25
_WIDTH: Final = 100
"""Characters of a line."""
_MARK: Final = b"~"
"""In each line once, and not in the command that prints them."""
_PAUSE: Final = 0.15
"""Seconds between two lines whose way is timed: longer than lines are collected."""
_BEFORE: Final = 1.5
"""Seconds for `logs -f` to be there before the first line: what it finds stored comes faster."""
_SUBJECT: Final = "bench.lines"


async def measure(system: dict[str, Any], folder: Path, amounts: Amounts) -> list[Row]:
    """On an idle system. `folder`: the bench's."""
    server = EmbeddedServer(folder / "plain")
    await server.start()
    try:
        async with connected(system["nats"], "bench") as bus:
            requests = Requests(bus)
            try:
                ours, plain = await _latency(system, requests, server, amounts.log_waits)
                rates, ceilings = [], []
                for _ in range(amounts.rounds):
                    ceilings.append(await _ceiling(server, amounts.log_lines))
                    rates.append(await _throughput(system, requests, amounts.log_lines))
            finally:
                await requests.close()
    finally:
        await server.stop()
    note = f"n={len(ours)}; other: plain JetStream, publish to consumer"
    shown = ", ".join(f"{one:,.0f}" for one in rates)
    return [
        row("a line printed to `logs -f`, median", median(ours), median(plain), most=MOST_MS, of="ours", note=note),
        row("a line printed to `logs -f`, p95", percentile(ours, 95), percentile(plain, 95), note=note),
        row("lines through the log path", median(rates), median(ceilings), least=_LEAST, unit="/s",
            note=f"{amounts.log_lines} lines of {_WIDTH} characters a round: {shown}; other: plain JetStream"),
    ]  # fmt: skip


async def _latency(system: dict[str, Any], requests: Requests, server: EmbeddedServer, count: int
                   ) -> tuple[list[float], list[float]]:  # fmt: skip
    """Milliseconds of each, by turns."""
    ours: list[float] = []
    async with _plain(server) as plain:
        script = f"i=0; while [ $i -le {count} ]; do date +t=%s.%N; sleep {_PAUSE}; i=$((i+1)); done"
        async with _followed(system, requests, script) as shown:
            while line := await shown.readline():
                if line.startswith(b"t="):
                    ours.append((time.time() - float(line[2:])) * 1000)
                    await plain.one()
    assert len(ours) == count + 1
    return ours[1:], plain.taken[1:]  # the first of each warms up


async def _throughput(system: dict[str, Any], requests: Requests, lines: int) -> float:
    """Lines a second, from the first to the last that is shown."""
    script = f'sleep {_BEFORE}; yes "$(printf "\\176%0{_WIDTH - 1}d" 7)" | head -n {lines}'
    seen, begun = 0, 0.0
    async with _followed(system, requests, script) as shown:
        while data := await shown.read(1 << 20):
            seen += data.count(_MARK)
            begun = begun or (time.perf_counter() if seen else 0.0)
            if seen == lines:
                return lines / (time.perf_counter() - begun)
    raise AssertionError(f"{seen} of {lines} lines were shown")


@contextlib.asynccontextmanager
async def _followed(system: dict[str, Any], requests: Requests, script: str) -> AsyncIterator[asyncio.StreamReader]:
    """What `pitstop logs -f` prints of a run of this script."""
    request = await requests.publish(script)
    run = run_id(ORG, request)
    await requests.until(request, lambda fact: fact.__struct_config__.tag == "sandbox.ready")
    pitstop = str(Path(sys.executable).parent / "pitstop")
    process = await asyncio.create_subprocess_exec(
        pitstop, "logs", "-f", run, "--nats", system["nats"], "--org", ORG, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""}, limit=1 << 22,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout
        while await process.stdout.read(1 << 20):
            pass
        assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Plain:
    """A stream and its consumer in one client."""

    def __init__(self, js: Any) -> None:
        self._js = js
        self._came = asyncio.Event()
        self.taken: list[float] = []
        self.lines = 0

    async def hear(self, msg: Msg) -> None:
        """A chunk: count what is in it."""
        self.lines += len(decode_chunk(msg.data).lines)
        self._came.set()

    async def one(self) -> None:
        """One line, from its publish until it was heard."""
        self._came.clear()
        begun = time.perf_counter()
        await self._js.publish(_SUBJECT, _chunk(0, ("t=1700000000.000000000",)))
        await self._came.wait()
        self.taken.append((time.perf_counter() - begun) * 1000)

    async def many(self, lines: int) -> float:
        """Lines a second."""
        line = "~" + "7" * (_WIDTH - 1)
        each = MAX_LOG_CHUNK // (_WIDTH + 1)
        self.lines = 0
        begun = time.perf_counter()
        for first in range(0, lines, each):
            await self._js.publish(_SUBJECT, _chunk(first, (line,) * min(each, lines - first)))
        while self.lines < lines:
            self._came.clear()
            await self._came.wait()
        return lines / (time.perf_counter() - begun)


@contextlib.asynccontextmanager
async def _plain(server: EmbeddedServer) -> AsyncIterator[_Plain]:
    nc = await nats.connect(server.url())
    js = nc.jetstream()
    await js.add_stream(name="BENCH", subjects=[_SUBJECT])
    plain = _Plain(js)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE)
    subscription = await js.subscribe(_SUBJECT, cb=plain.hear, config=config)
    try:
        yield plain
    finally:
        await subscription.unsubscribe()
        await js.delete_stream("BENCH")
        await nc.close()


async def _ceiling(server: EmbeddedServer, lines: int) -> float:
    async with _plain(server) as plain:
        return await plain.many(lines)


def _chunk(first: int, lines: tuple[str, ...]) -> bytes:
    return encode(LogChunk(job="aaaaaaaaaaaa-1", attempt=1, step=1, tries=1, name="Run yes", first=first, lines=lines,
                           kind="output", time="2026-11-21T00:00:00.000Z"))  # fmt: skip
