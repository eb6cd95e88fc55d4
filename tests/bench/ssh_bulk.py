"""Bytes through a connection, both ways, and a key's echo while somebody else downloads."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.ssh_echo import APART, Typist
from tests.bench.ssh_ends import End

LEAST: Final = 0.6
MOST_MS: Final = 15
_PIECE: Final = 256 * 1024


def measure(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """By turns."""
    return [*rates(job, sshd, amounts), *_beside(job, sshd, amounts)]


def rates(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """Of a download and an upload."""
    size = amounts.bulk
    rows = []
    ways: tuple[tuple[str, Callable[[End, int], float]], ...] = (("download", _download), ("upload", _upload))
    for name, rate in ways:
        ours, other = [], []
        for _ in range(amounts.bulks + 1):
            ours.append(rate(job, size))
            other.append(rate(sshd, size))
        del ours[0], other[0]
        note = f"medians of {len(ours)} times {size / 1e6:g} MB; other: OpenSSH's sshd"
        rows.append(row(name, median(ours), median(other), least=LEAST, unit="MB/s", note=note))
    return rows


def _download(end: End, size: int) -> float:
    """From the first byte to the last, MB/s."""
    command = end.command(f"head -c {size} /dev/zero")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdout is not None
        seen = len(client.stdout.read(1))
        begun = time.perf_counter()
        while data := client.stdout.read(_PIECE):
            seen += len(data)
        taken = time.perf_counter() - begun
    assert (client.returncode, seen) == (0, size)
    return size / taken / 1e6


def _upload(end: End, size: int) -> float:
    """From the first byte to the word that all has come, MB/s."""
    piece = bytes(_PIECE)
    command = end.command("echo ready; wc -c")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin is not None and client.stdout is not None
        assert client.stdout.read(6) == b"ready\n"
        begun, left = time.perf_counter(), size
        while left:
            left -= client.stdin.write(piece[:left])
        client.stdin.close()
        assert int(client.stdout.read(100)) == size
        taken = time.perf_counter() - begun
    assert client.returncode == 0
    return size / taken / 1e6


def _beside(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    ours: list[float] = []
    other: list[float] = []
    with Typist(job) as here, Typist(sshd) as there:
        while len(ours) < amounts.echoes_beside:
            for end, typist, taken in ((job, here, ours), (sshd, there, other)):
                with _downloading(end):
                    typist.block(amounts.echo_block, APART)
                    taken += typist.block(amounts.echo_block, APART)
    note = f"n={len(ours)}, keys {APART * 1000:g} ms apart, one worker; other: OpenSSH's sshd beside its own download"
    return [
        row("echo beside a download, p99", percentile(ours, 99), percentile(other, 99), most=MOST_MS, of="ours",
            note=note),
        row("echo beside a download, median", median(ours), median(other), note=note),
    ]  # fmt: skip


@contextlib.contextmanager
def _downloading(end: End) -> Iterator[None]:
    """Somebody fetches as much as goes through, for the length of a block."""
    command = end.command("echo flowing >&2; exec cat /dev/zero")
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert client.stderr is not None
        assert client.stderr.readline() == b"flowing\n"
        yield
    finally:
        client.kill()
        client.communicate()
