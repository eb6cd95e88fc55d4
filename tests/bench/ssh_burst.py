"""Many connects at once: what they cost the server, each."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from tests.bench.amounts import Amounts
from tests.bench.processes import children, cpu_with_children, of_system
from tests.bench.report import Row, row
from tests.bench.ssh_ends import End

MOST: Final = 0.4
_ADDRESSES: Final = 50
"""The clients come from so many: the relay lets 20 of one address log in at a time."""
_SECONDS: Final = 120


def measure(folder: Path, job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """By turns. `folder`: the system's. Counted is all that serves a connect: relay, host process and holder here, the
    server and its children there, the command in both."""
    ours, other, took, took_other = 0.0, 0.0, 0.0, 0.0
    found = of_system(folder)
    here = [*found["relay"], *found["sandbox"]]
    holders = [pid for host in found["sandbox"] for pid in children(host)]
    for _ in range(amounts.rounds):
        before = cpu_with_children([*here, *holders])
        took += _at_once(job, amounts.burst)
        ours += cpu_with_children([*here, *holders]) - before
        before = cpu_with_children([sshd.pid])
        took_other += _at_once(sshd, amounts.burst)
        _until_alone(sshd.pid)
        other += cpu_with_children([sshd.pid]) - before
    connects = amounts.rounds * amounts.burst
    note = (f"{amounts.rounds} times {amounts.burst} at once, all let in, in {took / amounts.rounds:.2f} s "
            f"(sshd {took_other / amounts.rounds:.2f} s); relay, host process, holder; other: sshd")  # fmt: skip
    return [row("server CPU per connect, many at once", ours / connects, other / connects, most=MOST, note=note)]


def _at_once(end: End, count: int) -> float:
    """Seconds until the last has its answer."""
    begun = time.perf_counter()
    clients = []
    for number in range(count):
        command = end.command("echo in", bind=f"127.0.0.{2 + number % _ADDRESSES}")
        clients.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
    for client in clients:
        said, _ = client.communicate(timeout=_SECONDS)
        assert (client.returncode, said) == (0, b"in\n")
    return time.perf_counter() - begun


def _until_alone(pid: int) -> None:
    """What a server's children cost is known when they are gone."""
    deadline = time.monotonic() + _SECONDS
    while children(pid):
        assert time.monotonic() < deadline, "sshd has children still"
        time.sleep(0.02)
