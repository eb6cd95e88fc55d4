"""The job folder as hostile code leaves it: nothing is followed, blocks, or grows without end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop_sandbox.steps import github
from pitstop_sandbox.steps.folder import Guarded, Tampered


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    (tmp_path / "host-secret").write_text("A=secret\n")
    return folder


def test_fresh_files_then_what_a_step_wrote(job: Path) -> None:
    github.prepare(job, "step.sh", "echo hi\n")
    (job / "github/env").write_text("A=1\n")
    (job / "github/path").write_text("/opt/x\n")
    exports, warnings = github.collect(job)
    assert (exports.env, exports.path, warnings) == ({"A": "1"}, ("/opt/x",), [])
    assert (job / "script/step.sh").read_text() == "echo hi\n"
    assert os.access(job / "script/step.sh", os.X_OK)
    github.prepare(job)
    assert github.collect(job)[0].env == {}


def test_a_link_is_not_followed_for_reading(job: Path) -> None:
    github.prepare(job)
    (job / "github/env").unlink()
    (job / "github/env").symlink_to(job.parent / "host-secret")
    exports, warnings = github.collect(job)
    assert exports.env == {}
    assert len(warnings) == 1


def test_a_pipe_does_not_block(job: Path) -> None:
    github.prepare(job)
    (job / "github/env").unlink()
    os.mkfifo(job / "github/env")
    _, warnings = github.collect(job)
    assert "no regular file" in warnings[0]


def test_a_file_without_end_is_refused(job: Path) -> None:
    github.prepare(job)
    os.truncate(job / "github/env", 1 << 40)
    exports, warnings = github.collect(job)
    assert exports.env == {}
    assert "larger than" in warnings[0]


def test_links_are_not_followed_for_writing(job: Path) -> None:
    outside = job.parent / "outside"
    outside.mkdir()
    (outside / "env").write_text("precious")
    (job / "github").symlink_to(outside)
    github.prepare(job)
    assert (outside / "env").read_text() == "precious"
    assert (job / "github").is_dir() and not (job / "github").is_symlink()


def test_a_folder_in_place_of_a_file_is_put_aside(job: Path) -> None:
    (job / "github/env/deep").mkdir(parents=True)
    github.prepare(job)
    assert (job / "github/env").is_file()


def test_a_published_file_appears_whole_and_names_are_bounded(job: Path) -> None:
    with Guarded.open(job) as folder:
        (job / "reply").mkdir()
        folder.publish("reply", b"0\nfine\n")
        assert folder.read("reply", 100) == b"0\nfine\n"
        assert folder.read("missing", 100) is None
        with pytest.raises(Tampered):
            folder.read("reply", 3)
        for number in range(50):
            (job / f"junk{number}").touch()
        assert len(folder.names(10)) == 10


def test_the_job_folder_itself_must_not_be_a_link(job: Path) -> None:
    link = job.parent / "link"
    link.symlink_to(job)
    with pytest.raises(OSError):
        Guarded.open(link)


def test_only_a_plain_empty_file_of_the_owner_is_left_where_it_lies(job: Path) -> None:
    github.prepare(job)
    path = job / "github/env"
    before = path.stat().st_ino
    github.prepare(job)
    assert path.stat().st_ino == before

    def replace(make: Callable[[], object]) -> None:
        path.unlink()
        make()

    def linked() -> None:
        path.touch()
        os.link(path, job / "another-name")

    for spoil in (
        lambda: path.write_text("A=1\n"), lambda: path.chmod(0o600), lambda: replace(path.mkdir),
        lambda: replace(lambda: os.mkfifo(path)), lambda: replace(linked),
        lambda: replace(lambda: path.symlink_to(job.parent / "host-secret")),
    ):  # fmt: skip
        spoil()
        github.prepare(job)
        found = path.lstat()
        assert stat.S_ISREG(found.st_mode) and (found.st_size, found.st_nlink, found.st_mode & 0o777) == (0, 1, 0o644)
    assert (job.parent / "host-secret").read_text() == "A=secret\n"
