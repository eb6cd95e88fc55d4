"""Whole runs per second, on the production path, against what the server could store of as many messages.

Real nats-server with the accounts of `pitstop up`, a real scheduler and real sandbox hosts, each a process, and a
process that loads. Only what a step does is played: the hosts have the in-memory backend, and their folders in memory
where the system has such a place (ext4 is slow at making files where many were just removed; no real host ends
hundreds of jobs a second). The server stores on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import uvloop
from nats.aio.msg import Msg
from tests.bench import ceiling
from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, row

from pitstop_cli.local import credentials
from pitstop_common import subjects
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import Account, EmbeddedServer, die_with_parent
from pitstop_common.permissions import OWNER
from pitstop_common.provision import provision
from pitstop_common.streams import buckets, streams

LEAST: Final = 0.40
_HOSTS: Final = 2
_CAPACITY: Final = 500
_ORGS: Final = 16
_WINDOW: Final = 300
_START_SECONDS: Final = 30
_SECONDS: Final = 300
_ALWAYS: Final = 10
"""Messages that are stored in such a time without any run: signs of life."""
_ALL: Final = "all"


async def measure(folder: Path, amounts: Amounts) -> list[Row]:
    """Ceiling and runs by turns. The ratio is of whole runs to those that the stored messages would allow."""
    folder.mkdir()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pitstop-bench-", dir=memory) as hosts:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(_server(folder))
            bus = await stack.enter_async_context(connected(server.url(_ALL), "bench"))
            await provision(bus)
            await ceiling.make_stream(bus)
            pids = {"nats-server": [server.pid]}
            pids["scheduler"] = [await stack.enter_async_context(_service("scheduler", folder / "scheduler", server))]
            pids["hosts"] = [
                await stack.enter_async_context(_service("sandbox", Path(hosts, str(number)), server))
                for number in range(_HOSTS)
            ]
            return await _by_turns(server, bus, pids, amounts)


async def _by_turns(server: EmbeddedServer, bus: Bus, pids: dict[str, list[int]], amounts: Amounts) -> list[Row]:
    ceilings, rates, stored, cost = [], [], [], []
    await _load(server, bus, max(20, amounts.runs // 10), amounts.settled)
    for _ in range(amounts.rounds):
        ceilings.append(await ceiling.measure(server.url(_ALL), amounts.ceiling, amounts.publishers))
        before, used = await _stored(bus), _cpu(pids)
        rates.append(await _load(server, bus, amounts.runs, amounts.settled))
        stored.append((await _stored(bus) - before) / amounts.runs)
        cost.append({name: (after - used[name]) / amounts.runs for name, after in _cpu(pids).items()})
    ceilings.append(await ceiling.measure(server.url(_ALL), amounts.ceiling, amounts.publishers))
    raw, messages, rate = median(ceilings), median(stored), median(rates)
    note = (f"{messages:.1f} messages stored per run, ceiling {raw:,.0f} messages/s ({amounts.publishers} publishers); "
            f"other: ceiling / messages; CPU ms per run: {_each(cost)}; {_HOSTS} hosts; "
            f"rounds: {', '.join(f'{one:.0f}' for one in rates)} runs/s, "
            f"{', '.join(f'{one:,.0f}' for one in ceilings)} messages/s")  # fmt: skip
    return [row("whole runs", rate, raw / messages, least=LEAST, unit="/s", note=note)]


@contextlib.asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[EmbeddedServer]:
    everything = Account(user=_ALL, password=secrets.token_urlsafe(16))
    server = EmbeddedServer(folder / "nats", accounts=[*credentials.accounts(folder, "local"), everything])
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def _service(name: str, folder: Path, server: EmbeddedServer) -> AsyncIterator[int]:
    folder.mkdir(mode=0o700)
    ready = folder / "ready"
    env = {
        "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": server.url(name), "PITSTOP_DIR": str(folder),
        "PITSTOP_READY_FILE": str(ready), "PITSTOP_SANDBOX": "fake", "PITSTOP_CAPACITY": str(_CAPACITY),
        "PITSTOP_JOBS_AT_STOP": "end", "PITSTOP_LOG_LEVEL": "warning",
    }  # fmt: skip
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"pitstop_{name}"], env=env, stderr=errors, preexec_fn=die_with_parent
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.02)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 35)
        finally:
            process.kill()


def _cpu(pids: dict[str, list[int]]) -> dict[str, float]:
    """Milliseconds of processor that the processes of each name have used so far."""
    return {name: sum(_cpu_of(pid) for pid in those) for name, those in pids.items()}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _each(cost: list[dict[str, float]]) -> str:
    return ", ".join(f"{name} {median([one[name] for one in cost]):.2f}" for name in cost[0])


async def _stored(bus: Bus) -> int:
    """Messages that all streams and buckets have ever stored."""
    names = [str(config.name) for config in (*streams(), *buckets())]
    return sum([(await bus.js.stream_info(name)).state.last_seq for name in names])


async def _load(server: EmbeddedServer, bus: Bus, runs: int, settled: float) -> float:
    """Runs per second, from the first request to the last `run.finished`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.runs", server.url(OWNER), str(runs), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    await _settled(bus, settled)
    return runs / float(said)


async def _settled(bus: Bus, seconds: float) -> None:
    """Until nothing more is written of the runs: what comes late counts, too."""
    before = -1
    while (now := await _stored(bus)) - before > _ALWAYS:
        before = now
        await asyncio.sleep(seconds)


async def _request_and_count(url: str, runs: int) -> float:
    """The loader: keeps some requests ahead of the ends that it hears. Seconds."""
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
            body = {"id": request, "org": f"org-{number % _ORGS}", "project": "bench", "steps": [{"run": "true"}]}
            await bus.send(subjects.RUN_REQUESTED, json.dumps(body).encode(), {"Nats-Msg-Id": request})
        await done.wait()
        return time.perf_counter() - begun


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_request_and_count(sys.argv[1], int(sys.argv[2]))))
