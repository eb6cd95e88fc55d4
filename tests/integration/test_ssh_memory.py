"""Who takes everything and reads nothing: what it costs the relay and the host, and that it slows nobody."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.test_ssh_service import Service, service
from tests.patience import PATIENCE
from tests.ssh_support import JOB

__all__ = ["service"]

MOST = 32 * 1024 * 1024
LOGINS = 5
STUCK = """
import asyncio, sys, asyncssh

async def main(port, user, key):
    options = dict(username=user, client_keys=[key], known_hosts=None, config=None)
    async with asyncssh.connect("127.0.0.1", port, **options) as client:
        process = await client.create_process("cat /dev/zero", encoding=None, window=2**32 - 1)
        await process.stdout.read(1)
        client._transport.pause_reading()
        print("stuck", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        client.abort()

asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy(pid: int) -> float:
    """Seconds of processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def settled(measure: Callable[[], Awaitable[float]]) -> None:
    """Until it is the same ten times."""
    last, same = -1.0, 0
    async with asyncio.timeout(PATIENCE):
        while same < 10:
            await asyncio.sleep(0.02)
            now = await measure()
            last, same = now, same + 1 if now == last else 0


async def passed(made: Service, direction: str) -> float:
    page = await made.page("/metrics")
    (line,) = [
        one for one in page.splitlines() if one.startswith(f'pitstop_relay_bytes_total{{direction="{direction}"}}')
    ]
    return float(line.rpartition(" ")[2])


@asynccontextmanager
async def running(*argv: str, stdin: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE if stdin is None else stdin, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_windows_of_4_gib_and_sinks_that_take_nothing_cost_little_and_slow_nobody(service: Service) -> None:
    ssh, relay = service.ssh, service.process.pid

    async def logins() -> float:
        """What the relay spends on some others."""
        before = busy(relay)
        for _ in range(LOGINS):
            assert await ssh.ssh("echo others") == (0, b"others\n", b"")
        return busy(relay) - before

    await ssh.ssh("head -c 40000000 /dev/zero")
    alone = await logins()
    before = {pid: resident(pid) for pid in (relay, os.getpid())}

    stuck = [sys.executable, "-c", STUCK, str(ssh.at.port), JOB, str(ssh.folder / "ada")]
    async with running(*stuck) as reader:
        assert reader.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await reader.stdout.readline() == b"stuck\n"
        await settled(lambda: passed(service, "down"))
        assert await passed(service, "down") > 2**20, "it was sent what there is room for"
        for pid, size in before.items():
            assert resident(pid) - size < MOST
        assert await logins() < 3 * alone + 0.2
    await ssh.job.until("closed", "ada", "disconnect")

    with Path("/dev/zero").open("rb") as endless:
        async with running(*ssh.ssh_args(), "sleep 1000", stdin=endless.fileno()):
            await settled(lambda: passed(service, "up"))
            assert await passed(service, "up") > 2**20
            for pid, size in before.items():
                assert resident(pid) - size < MOST
            assert await logins() < 3 * alone + 0.2
