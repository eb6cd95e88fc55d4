"""From the start of the ssh client to the first byte of what a command prints."""

from __future__ import annotations

import subprocess
import time

from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.ssh_ends import End

MOST = 0.8


def measure(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """By turns."""
    ours, other = [], []
    for _ in range(amounts.connects + 1):
        ours.append(_one(job))
        other.append(_one(sshd))
    del ours[0], other[0]  # the first of each warms up
    note = f"n={len(ours)}; other: OpenSSH's sshd"
    return [
        row("ssh connect to output, median", median(ours), median(other), most=MOST, note=note),
        row("ssh connect to output, p95", percentile(ours, 95), percentile(other, 95), note=note),
    ]


def _one(end: End) -> float:
    begun = time.perf_counter()
    with subprocess.Popen(end.command("echo hi"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        first = client.stdout.read(1)
        taken = (time.perf_counter() - begun) * 1000
        assert first + client.stdout.read() == b"hi\n"
    assert client.returncode == 0
    return taken
