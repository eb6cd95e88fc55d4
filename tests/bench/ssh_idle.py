"""What open shells that nobody types into cost in memory.

`python -m tests.bench.ssh_idle COUNT END...` opens so many, by turns at each end (as JSON), says so, and keeps them
open until its input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncssh
import msgspec
from tests.bench.amounts import Amounts
from tests.bench.processes import children, memory, of_system, program
from tests.bench.report import Row, row
from tests.bench.ssh_ends import CIPHER, KEX, End, openssh, paused_jobs
from tests.bench.ssh_prompt import PROMPTS
from tests.whole_system import running_system

MOST_KIB: Final = 100
MOST_HOLDER_KIB: Final = 12 * 1024
_AT_ONCE: Final = 16
_SECONDS: Final = 600


async def measure(folder: Path, amounts: Amounts) -> list[Row]:
    """In a system of their own, one server after the other."""
    folder.mkdir()
    with running_system(folder / "up") as system:
        async with paused_jobs(system, folder, amounts.idle_jobs) as jobs:
            pids = of_system(folder / "up")
            before = memory([*pids["relay"], *pids["sandbox"]])
            async with _open(amounts.idle, jobs):
                grown = memory([*pids["relay"], *pids["sandbox"]]) - before
                holders = [pid for host in pids["sandbox"] for pid in children(host) if children(pid)]
                held = memory(holders) / len(holders)
    with openssh(folder / "openssh") as sshd:
        async with _open(amounts.idle_other, [sshd]):
            other = memory(_servers(sshd.pid))
    each = f"{amounts.idle} shells in {amounts.idle_jobs} jobs"
    return [
        row("memory per idle session", grown / amounts.idle, other / amounts.idle_other, most=MOST_KIB, of="ours",
            unit="KiB", note=f"{each}; growth of relay and host process; other: {amounts.idle_other} of OpenSSH's "
                             "sshd, without the shells"),
        row("memory of a job's holder", held, MOST_HOLDER_KIB, most=MOST_HOLDER_KIB, of="ours", unit="KiB",
            note=f"other: the bound; {each}"),
    ]  # fmt: skip


def _servers(pid: int) -> list[int]:
    """The processes of the server itself below a process of it: not the shells."""
    mine = [child for child in children(pid) if Path(f"/proc/{child}/comm").read_text().startswith("sshd")]
    return [*mine, *(each for child in mine for each in _servers(child))]


@contextlib.asynccontextmanager
async def _open(count: int, ends: list[End]) -> AsyncIterator[None]:
    said = [msgspec.json.encode(end, enc_hook=str).decode() for end in ends]
    async with program("tests.bench.ssh_idle", str(count), *said, seconds=_SECONDS):
        yield


async def _hold(count: int, ends: list[End]) -> None:
    room = asyncio.Semaphore(_AT_ONCE)
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(_enter(stack, room, ends[number % len(ends)]) for number in range(count)))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _enter(stack: contextlib.AsyncExitStack, room: asyncio.Semaphore, end: End) -> None:
    async with room:
        connection = await stack.enter_async_context(asyncssh.connect(
            end.host, end.port, username=end.user, client_keys=[str(end.key)], known_hosts=str(end.known_hosts),
            config=None, agent_path=None, kex_algs=[KEX], encryption_algs=[CIPHER],
        ))  # fmt: skip
        # Each a new one: nobody is asked whether they still need theirs.
        command = "new" if not end.pid else None
        shell = await connection.create_process(command, term_type="xterm", encoding=None)
        seen = b""
        while not seen.endswith(PROMPTS):
            data = await shell.stdout.read(4096)
            assert data, seen
            seen += data


def _end(text: str) -> End:
    return msgspec.json.decode(text, type=End, dec_hook=lambda kind, value: kind(value))


if __name__ == "__main__":
    asyncio.run(_hold(int(sys.argv[1]), [_end(text) for text in sys.argv[2:]]))
