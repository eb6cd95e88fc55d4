"""A real server and real services, each a process, and what they have cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Final

from pitstop_cli.local import credentials
from pitstop_common.bus import Bus
from pitstop_common.embedded import Account, EmbeddedServer, die_with_parent
from pitstop_common.streams import buckets, streams

ALL: Final = "all"
"""The account that may do everything."""
_START_SECONDS: Final = 30
_ALWAYS: Final = 10
"""Messages that are stored in a second or two though nothing happens: signs of life."""


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[EmbeddedServer]:
    """nats-server with the accounts of `pitstop up`, storing on disk, for the length of a block."""
    everything = Account(user=ALL, password=secrets.token_urlsafe(16))
    server = EmbeddedServer(folder / "nats", accounts=[*credentials.accounts(folder, "local"), everything])
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def service(name: str, folder: Path, server: EmbeddedServer, **settings: object) -> AsyncIterator[int]:
    """One service as a process, ready, for the length of a block. Yields its pid."""
    folder.mkdir(mode=0o700)
    ready = folder / "ready"
    env = {
        "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": server.url(name), "PITSTOP_DIR": str(folder),
        "PITSTOP_READY_FILE": str(ready), "PITSTOP_LOG_LEVEL": "warning",
        **{f"PITSTOP_{key.upper()}": str(value) for key, value in settings.items()},
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


@contextlib.asynccontextmanager
async def program(*words: str, seconds: float = _START_SECONDS) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m <words>` that says a line when it is ready and ends when its stdin does, for the length of a block.
    `seconds`: until it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            assert await process.stdout.readline()
        yield process
        process.stdin.close()
        async with asyncio.timeout(_START_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answer_of(seconds: float, *words: str) -> bytes:
    """What `python -m <words>` prints."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *words, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return said


def cpu(pids: Mapping[str, list[int]]) -> dict[str, float]:
    """Milliseconds of processor that the processes of each name have used so far."""
    return {name: sum(_cpu_of(pid) for pid in those) for name, those in pids.items()}


def _cpu_of(pid: int, counters: int = 2) -> float:
    """`counters`: own user and system time, then that of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 11 + counters])) * 1000 / os.sysconf("SC_CLK_TCK")


def cpu_with_children(pids: Iterable[int]) -> float:
    """Milliseconds of processor that processes have used, and their children that have ended and were waited for."""
    return sum(_cpu_of(pid, 4) for pid in pids)


def children(pid: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


def of_system(folder: Path) -> dict[str, list[int]]:
    """The processes of each service of a system that `pitstop up --dir folder` runs."""
    found: dict[str, list[int]] = {"scheduler": [], "sandbox": [], "relay": [], "janitor": []}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            service = path.read_text().rstrip("\0").rpartition("pitstop_")[2]
            if service in found and f"{folder}/" in (path.parent / "environ").read_text():
                found[service].append(int(path.parent.name))
    return found


def memory(pids: Iterable[int]) -> float:
    """Proportional set size of all together, KiB."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(float(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:"))


async def stored(bus: Bus) -> int:
    """Messages that all streams and buckets have ever stored."""
    names = [str(config.name) for config in (*streams(), *buckets())]
    return sum([(await bus.js.stream_info(name)).state.last_seq for name in names])


async def quiet(bus: Bus, seconds: float) -> None:
    """Until nothing more is written for so long."""
    before = -1
    while (now := await stored(bus)) - before > _ALWAYS:
        before = now
        await asyncio.sleep(seconds)
