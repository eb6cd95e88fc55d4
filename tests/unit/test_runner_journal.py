"""The journal file: what was written is there, what was half written is not, and one process has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.events import Event, Removed, StepEnded, Tick
from pitstop_sandbox.journal import Journal, JournalError

EVENTS: list[Event] = [Tick(), StepEnded(step=1, tries=1, exit_code=0, tail=("a", "b")), Removed()]


def write(path: Path) -> None:
    journal = Journal(path)
    for number, event in enumerate(EVENTS):
        journal.append(float(number), event)
    journal.close()


def events(path: Path) -> list[object]:
    journal = Journal(path)
    journal.close()
    return [entry.event for entry in journal.entries]


def test_events_come_back_with_their_times(tmp_path: Path) -> None:
    write(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    assert [(entry.now, entry.event) for entry in journal.entries] == list(enumerate(EVENTS))
    journal.close()


@given(lost=st.integers(1, 200))
def test_a_torn_tail_is_dropped_and_writing_goes_on(tmp_path_factory: pytest.TempPathFactory, lost: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - lost)])
    before = events(path)
    assert before == EVENTS[: len(before)] and len(before) < len(EVENTS)
    journal = Journal(path)
    journal.append(9.0, Tick())
    journal.close()
    assert events(path) == [*before, Tick()]


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert events(path) == EVENTS[:-1]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(JournalError, match="another process"):
        Journal(tmp_path / "journal")
    journal.close()
    Journal(tmp_path / "journal").close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else entirely")
    with pytest.raises(JournalError, match="version"):
        Journal(tmp_path / "journal")
