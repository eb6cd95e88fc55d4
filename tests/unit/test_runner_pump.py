"""The way of a spool into the log: in order, batched, and from the right line after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.patience import PATIENCE

from pitstop_common.limits import MAX_LOG_CHUNK
from pitstop_sandbox.steps.lines import Lines
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.steps.pump import Progress, Pump


class Log:
    def __init__(self, fail_after: int = 1 << 30) -> None:
        self.lines: dict[int, str] = {}
        self.batches: list[int] = []
        self.sizes: list[int] = []
        self.fail_after = fail_after
        self.news = asyncio.Event()

    async def send(self, first: int, lines: tuple[str, ...]) -> None:
        if len(self.batches) >= self.fail_after:
            raise ConnectionError("killed here")
        for number, line in enumerate(lines, first):
            assert self.lines.setdefault(number, line) == line
        self.batches.append(first)
        self.sizes.append(sum(len(line) + 1 for line in lines))
        self.news.set()


class Spool:
    """A spool that tells when it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self._news.set()
        self._news = asyncio.Event()

    async def grown(self, beyond: int) -> int:
        while (size := self.path.stat().st_size) <= beyond:
            await self._news.wait()
        return size


def pump(spool: Spool, log: Log, stored: int = 0) -> Pump:
    return Pump(spool.path, Lines(Masks()), log.send, spool.grown, stored=stored)


async def test_the_first_line_is_sent_at_once_and_all_at_the_end(tmp_path: Path) -> None:
    spool, log = Spool(tmp_path / "out"), Log()
    under_test = pump(spool, log)
    running = asyncio.create_task(under_test.run())
    spool.write(b"first\n")
    await asyncio.wait_for(log.news.wait(), PATIENCE)
    assert log.lines == {0: "first"}
    spool.write(b"second\nunfinished")
    under_test.end()
    await asyncio.wait_for(running, PATIENCE)
    assert list(log.lines.values()) == ["first", "second", "unfinished"]


async def test_after_a_restart_nothing_is_lost_and_line_numbers_agree(tmp_path: Path) -> None:
    spool, log = Spool(tmp_path / "out"), Log(fail_after=2)
    spool.write(b"".join(b"line %d %s\n" % (number, b"x" * 100) for number in range(5000)))
    first = pump(spool, log)
    first.end()
    with pytest.raises(ConnectionError):
        await first.run()
    log.fail_after = 1 << 30
    known = max(log.lines) + 1
    second = pump(spool, log, stored=known - 3)  # the record lags by what was being sent
    second.end()
    await second.run()
    assert sorted(log.lines) == list(range(5000))
    assert min(log.batches[2:]) == known - 3
    assert max(log.sizes) <= MAX_LOG_CHUNK


async def test_memory_stays_flat_while_the_log_is_slow(tmp_path: Path) -> None:
    spool, log = Spool(tmp_path / "out"), Log()
    spool.write(b"y" * 99 + b"\n")
    for _ in range(7):
        spool.path.write_bytes(spool.path.read_bytes() * 4)
    under_test = pump(spool, log)
    under_test.end()
    import tracemalloc

    counted = 0

    async def count(first: int, lines: tuple[str, ...]) -> None:
        nonlocal counted
        assert first == counted
        counted += len(lines)

    under_test._send = count
    tracemalloc.start()
    await under_test.run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counted == 4**7
    assert peak < 1.5 * 2**20


def test_progress_belongs_to_one_try_and_survives_a_torn_record(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "progress")
    assert progress.get(1, 1) == 0
    progress.set(1, 1, 7)
    assert progress.get(1, 1) == 7
    assert progress.get(1, 2) == progress.get(2, 1) == 0
    progress.close()
    data = (tmp_path / "progress").read_bytes()
    (tmp_path / "progress").write_bytes(data[:-2])
    again = Progress(tmp_path / "progress")
    assert again.get(1, 1) == 0
    again.close()
