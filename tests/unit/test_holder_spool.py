"""A spool: whole, in order, bounded, and never in the way of its process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pitstop_sandbox.holder.spool import CHUNK, Spool


class Piped:
    """A spool and the writing end of its pipe."""

    def __init__(self, path: Path, limit: int) -> None:
        pipe, self.end = os.pipe()
        self.path = path
        self.spool = Spool(pipe, str(path), limit)

    def write(self, data: bytes) -> None:
        os.write(self.end, data)

    def text(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Piped]:
    made = Piped(tmp_path / "x.out", 100)
    yield made
    if made.end >= 0:
        os.close(made.end)
    made.spool.close()


def test_it_copies_what_is_there_and_says_when_the_last_writer_is_gone(piped: Piped) -> None:
    piped.write(b"one\n")
    assert piped.spool.pump()
    assert (piped.text(), piped.spool.size) == (b"one\n", 4)
    os.close(piped.end)
    piped.end = -1
    assert not piped.spool.pump()


def test_it_is_cut_at_its_limit_once_and_the_pipe_is_still_emptied(piped: Piped) -> None:
    for _ in range(3):
        piped.write(b"x" * 70)
        assert piped.spool.pump()
    marker = b"\n[pitstop: this output is longer than 100 bytes; the rest is not kept]\n"
    assert piped.text() == b"x" * 100 + marker
    assert piped.spool.size == 100 + len(marker)


def test_drain_takes_what_is_there_and_does_not_wait_for_more(piped: Piped) -> None:
    piped.write(b"last words")
    piped.spool.drain()
    assert piped.text() == b"last words"
    piped.spool.drain()


def test_a_full_disk_stops_the_file_and_not_the_process(tmp_path: Path) -> None:
    full = tmp_path / "full.out"
    piped = Piped(full, 10 * CHUNK)
    with Path("/dev/full").open("wb") as device:
        os.dup2(device.fileno(), piped.spool._file)
    for _ in range(3):
        piped.write(b"x" * 1000)
        assert piped.spool.pump()
    assert piped.spool.size == 0
    os.close(piped.end)
    piped.spool.close()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "x.out").symlink_to(tmp_path / "target")
    pipe, end = os.pipe()
    with pytest.raises(OSError, match="symbolic links"):
        Spool(pipe, str(tmp_path / "x.out"), 100)
    os.close(pipe)
    os.close(end)
