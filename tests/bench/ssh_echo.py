"""From a key to its echo, through a terminal at each end.

Keys come some milliseconds apart, as from a person. Back to back they find every process awake and every cache warm,
which nobody's fingers do; that is measured, too.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from typing import Final, Self

from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.ssh_ends import End

MOST: Final = 2.0
MOST_P99: Final = 2.5
APART: Final = 0.01
"""Seconds between an echo and the next key."""
_WAIT_SECONDS = 20
_READY = b"ready"


def measure(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """Both connections are open all the time; blocks of keys go through them by turns."""
    with Typist(job) as here, Typist(sshd) as there:
        for typist in (here, there):
            typist.block(amounts.echo_block)
        ours, other = _by_turns(here, there, amounts, APART)
        quick_ours, quick_other = _by_turns(here, there, amounts, 0)
    note = f"n={len(ours)}, keys {APART * 1000:g} ms apart; other: OpenSSH's sshd"
    return [
        row("echo of a key, median", median(ours), median(other), most=MOST, note=note),
        row("echo of a key, p99", percentile(ours, 99), percentile(other, 99), most=MOST_P99, note=note),
        row("echo back to back, median", median(quick_ours), median(quick_other), note=f"n={len(quick_ours)}"),
    ]


def _by_turns(here: Typist, there: Typist, amounts: Amounts, apart: float) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    other: list[float] = []
    while len(ours) < amounts.echoes:
        ours += here.block(amounts.echo_block, apart)
        other += there.block(amounts.echo_block, apart)
    return ours, other


class Typist:
    """A stock client on a terminal; `cat` at the other end, whose terminal echoes."""

    def __init__(self, end: End) -> None:
        self._terminal, slave = pty.openpty()
        command = end.command(f"echo {_READY.decode()}; exec cat", tty=True)
        self._client = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def __enter__(self) -> Self:
        seen = b""
        while _READY not in seen or not seen.endswith(b"\n"):
            seen += self._read()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        self._client.terminate()
        self._client.wait(10)

    def block(self, count: int, apart: float = 0) -> list[float]:
        """So many keys, each `apart` seconds after the echo of the one before. Milliseconds each."""
        taken = []
        for _ in range(count):
            time.sleep(apart)
            begun = time.perf_counter()
            os.write(self._terminal, b"x")
            echo = self._read()
            taken.append((time.perf_counter() - begun) * 1000)
            assert echo == b"x", echo
        self._end_line(count)
        return taken

    def _end_line(self, count: int) -> None:
        os.write(self._terminal, b"\n")
        seen = b""
        while seen != b"\r\n" + b"x" * count + b"\r\n":
            seen += self._read()

    def _read(self) -> bytes:
        assert select.select([self._terminal], [], [], _WAIT_SECONDS)[0], "nothing comes back"
        return os.read(self._terminal, 65536)
