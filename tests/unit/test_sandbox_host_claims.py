"""Folders of attempts, the ids of log chunks, and what the log's word means for an attempt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.messages import JobStatus, JobView, LogChunk, Start
from pitstop_sandbox.claims import Folders, is_older, key_of
from pitstop_sandbox.hosting.scheduler import judge
from pitstop_sandbox.sinks import chunk_id

START = Start(org="acme", run="abcdefghijkl", job="abcdefghijkl-1", attempt=2)


def test_a_folder_keeps_its_token(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    note = folders.make(START, "trace")
    assert folders.make(START, "other") == note == Folders(tmp_path).make(START, "")
    assert list(folders.scan()) == [(folders.path("abcdefghijkl-1.2"), note)]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"start": {}}', b"[]"])
def test_a_folder_without_a_sound_note_is_found_as_such(tmp_path: Path, content: bytes | None) -> None:
    folders = Folders(tmp_path)
    folder = folders.path("abcdefghijkl-1.1")
    folder.mkdir()
    if content is not None:
        (folder / "claim.json").write_bytes(content)
    assert list(folders.scan()) == [(folder, None)]


def test_a_note_in_the_wrong_folder_counts_for_nothing(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.make(START, "")
    folders.path(key_of(START.job, 2)).rename(folders.path(key_of(START.job, 3)))
    assert [note for _, note in folders.scan()] == [None]


async def test_a_folder_is_put_aside_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(tmp_path)
    folders.make(START, "")
    (folders.path("abcdefghijkl-1.2") / "work").mkdir()

    def killed(_path: Path) -> None:
        raise OSError("no more")

    with monkeypatch.context() as patch:
        patch.setattr("pitstop_sandbox.claims.remove_tree", killed)
        await folders.remove(folders.path("abcdefghijkl-1.2"))
    assert list(folders.scan()) == []
    assert len(list((tmp_path / "gone").iterdir())) == 1
    await Folders(tmp_path).sweep()
    assert list((tmp_path / "gone").iterdir()) == []
    await folders.remove(folders.path("abcdefghijkl-1.2"))


@pytest.mark.parametrize("cut", range(1, 8))
async def test_a_removal_that_is_cut_short_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    remove, left = os.rmdir, cut
    folders = Folders(tmp_path)
    folders.make(START, "")
    (folders.path("abcdefghijkl-1.2") / "work" / "a" / "b" / "c" / "d").mkdir(parents=True)

    def killed(*args: Any, **more: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("killed")
        remove(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", killed)
        for _ in range(3):  # the removal of a part is cut short, too: parts of parts lie beside it
            left = cut
            await folders.remove(folders.path("abcdefghijkl-1.2"))
    await Folders(tmp_path).sweep()
    assert list((tmp_path / "gone").iterdir()) == []


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [
        ("0.5.2.start", "0.6.0.start", True), ("0.5.2.start", "0.5.3.start", True),
        ("0.5.2.start", "0.5.2.start", False), ("0.9.0.start", "0.10.0.start", True),
        ("0.6.0.start", "0.5.9.start", False), ("1.5.0.start", "0.6.0.start", False),
        ("", "0.6.0.start", False), ("0.5.0.start", "", False), ("0.5.0.event", "0.6.0.start", False),
    ],
)  # fmt: skip
def test_a_grant_is_older_only_in_the_same_log(one: str, other: str, older: bool) -> None:
    assert is_older(one, other) is older


@pytest.mark.parametrize("name", ["notes", "abcdefghijkl-1", "abcdefghijkl-1.0", "abcdefghijkl-1.1.old", "x-1.1"])
def test_what_is_not_named_as_an_attempt_is_nobodys_to_touch(tmp_path: Path, name: str) -> None:
    folders = Folders(tmp_path)
    folders.path(name).mkdir()
    assert list(folders.scan()) == []


def chunk(first: int, lines: int) -> LogChunk:
    return LogChunk(job=START.job, attempt=1, step=1, tries=1, name="x", first=first, lines=("l",) * lines)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_two_chunks_have_one_id_only_when_they_hold_the_same_lines(a: int, b: int, c: int, d: int) -> None:
    assert (chunk_id(chunk(a, b)) == chunk_id(chunk(c, d))) == ((a, b) == (c, d))


def view(status: JobStatus, attempt: int) -> JobView:
    return JobView(job=START.job, run=START.run, org="acme", project="web", key="b", pool="default", status=status,
                   attempt=attempt)  # fmt: skip


@pytest.mark.parametrize("status", ["starting", "running", "paused"])
def test_an_attempt_that_the_log_has_goes_on(status: JobStatus) -> None:
    verdict = judge(START, view(status, 2))
    assert (verdict.stop, verdict.over) == (None, False)


def test_a_log_that_lags_ends_nothing() -> None:
    assert judge(START, view("finished", 1)).stop is None


def test_an_attempt_whose_job_waits_to_be_tried_again_is_not_taken_up() -> None:
    verdict = judge(START, view("queued", START.attempt))
    assert verdict.over and verdict.stop is not None and verdict.stop.reason == "superseded"


@pytest.mark.parametrize(
    ("known", "over"),
    [(None, True), (view("running", 3), True), (view("finished", 2), True), (view("stopping", 2), False)],
)
def test_an_attempt_that_the_log_has_left_behind_is_ended(known: JobView | None, over: bool) -> None:
    verdict = judge(START, known)
    assert verdict.stop is not None
    assert (verdict.stop.attempt, verdict.over) == (2, over)
