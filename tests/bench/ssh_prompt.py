"""From the start of the ssh client to the prompt of a shell: of a paused job, and of OpenSSH's login shell."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from tests.bench.amounts import Amounts
from tests.bench.report import Row, median, percentile, row
from tests.bench.ssh_ends import End

MOST: Final = 0.6
PROMPTS: Final = (b"$ ", b"# ")
_SECONDS: Final = 20


def measure(job: End, sshd: End, amounts: Amounts) -> list[Row]:
    """By turns. In the job a shell is left open by somebody who went away: the end of the last would end the pause, and
    without `new` this one would be taken again."""
    with client(job) as terminal:
        until_prompt(terminal)
    ours, other = [], []
    for _ in range(amounts.connects + 1):
        ours.append(_one(job, "new"))
        other.append(_one(sshd))
        time.sleep(amounts.breath)
    del ours[0], other[0]  # the first of each warms up
    note = f"n={len(ours)}; other: the login shell of OpenSSH's sshd, in an empty home"
    return [
        row("ssh connect to prompt, median", median(ours), median(other), most=MOST, note=note),
        row("ssh connect to prompt, p95", percentile(ours, 95), percentile(other, 95), note=note),
    ]


def _one(end: End, *words: str) -> float:
    begun = time.perf_counter()
    with client(end, *words) as terminal:
        until_prompt(terminal)
        taken = (time.perf_counter() - begun) * 1000
        os.write(terminal, b"echo $((6 * 7)); exit\n")  # a prompt that nobody stands behind is none
        assert b"42\r\n" in _rest(terminal)
    return taken


@contextlib.contextmanager
def client(end: End, *words: str) -> Iterator[int]:
    """A stock client on a terminal, for the length of a block; its terminal's master. It is cut off at the end."""
    master, slave = pty.openpty()
    started = subprocess.Popen(end.command(*words, tty=True), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        yield master
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
        os.close(master)


def until_prompt(terminal: int) -> bytes:
    """What came before it."""
    seen = b""
    while not seen.endswith(PROMPTS):
        assert select.select([terminal], [], [], _SECONDS)[0], seen
        seen += os.read(terminal, 65536)
    return seen


def _rest(terminal: int) -> bytes:
    seen = b""
    while True:
        assert select.select([terminal], [], [], _SECONDS)[0], seen
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the client has ended
            return seen
        if not data:
            return seen
        seen += data
