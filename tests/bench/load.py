"""The loader: `python -m tests.bench.load URL RUNS POOL` asks for runs, hears their ends, and prints the seconds."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Final

import uvloop
from nats.aio.msg import Msg
from tests.bench.processes import answer_of, quiet

from pitstop_common import subjects
from pitstop_common.bus import Bus, connected

_ORGS: Final = 16
_WINDOW: Final = 300
_SECONDS: Final = 300


async def load(url: str, bus: Bus, runs: int, pool: str, settled: float) -> float:
    """Runs per second, from the first request to the last `run.finished`. Returns when nothing more is written of
    them: what comes late counts, too."""
    taken = float(await answer_of(_SECONDS, "tests.bench.load", url, str(runs), pool))
    await quiet(bus, settled)
    return runs / taken


async def _request_and_count(url: str, runs: int, pool: str) -> float:
    """Keeps some requests ahead of the ends that it hears. Seconds."""
    async with connected(url, "bench-loader") as bus:
        ended, room, done = set[str](), asyncio.Semaphore(_WINDOW), asyncio.Event()

        async def heard(msg: Msg) -> None:
            body = json.loads(msg.data)
            assert body["result"] == "success", body
            if body["run"] not in ended:
                ended.add(body["run"])
                room.release()
            if len(ended) == runs:
                done.set()

        await bus.subscribe("run.finished", heard)
        await bus.nc.flush()
        begun = time.perf_counter()
        for number in range(runs):
            await room.acquire()
            request = uuid.uuid4().hex
            body = {"id": request, "org": f"org-{number % _ORGS}", "project": "bench", "pool": pool,
                    "steps": [{"run": "true"}]}  # fmt: skip
            await bus.send(subjects.RUN_REQUESTED, json.dumps(body).encode(), {"Nats-Msg-Id": request})
        await done.wait()
        return time.perf_counter() - begun


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_request_and_count(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
