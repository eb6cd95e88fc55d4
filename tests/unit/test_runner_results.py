"""Outputs and summaries of steps as hostile code leaves them: bounded, masked, nothing followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MAX_JOB_OUTPUTS, MAX_OUTPUT_FILE, MAX_OUTPUTS, MAX_SUMMARY
from pitstop_sandbox.steps import github
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.steps.results import Results, _outputs, collect, size


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    (tmp_path / "host-secret").write_text("A=secret\n")
    github.prepare(folder)
    return folder


def left(job: Path, *masks: str, room: int = MAX_JOB_OUTPUTS) -> Results:
    return collect(job, Masks(masks), room)


def test_both_forms_of_an_output_and_a_summary(job: Path) -> None:
    (job / "github/output").write_text("version=1.2\nnotes<<END\none\ntwo=2\nEND\nversion=1.3\nempty=\n")
    (job / "github/summary").write_text("# Tests\n\n3 passed\n")
    found = left(job)
    assert found.outputs == {"version": "1.3", "notes": "one\ntwo=2", "empty": ""}
    assert (found.summary, found.warnings) == (("# Tests", "", "3 passed"), ())
    github.prepare(job)
    assert left(job) == Results()


def test_masked_values_are_hidden_in_values_names_and_summaries(job: Path) -> None:
    (job / "github/output").write_text("url=https://hunter22@x\nhunter22=1\nkey<<E\nfirst\nhunter22\nE\n")
    (job / "github/summary").write_text("the word is hunter22\n")
    found = left(job, "hunter22")
    assert found.outputs == {"url": "https://***@x", "key": "first\n***"}
    assert found.summary == ("the word is ***",)
    assert len(found.warnings) == 1 and "holds a masked value; left out" in found.warnings[0]


@pytest.mark.parametrize("name", ["output", "summary"])
def test_what_is_no_regular_file_is_ignored_and_told(job: Path, name: str) -> None:
    place = job / "github" / name
    for kind in ("link", "pipe", "folder"):
        place.unlink()
        if kind == "link":
            place.symlink_to(job.parent / "host-secret")
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            place.mkdir()
        found = left(job)
        assert (found.outputs, found.summary) == ({}, ())
        (warning,) = found.warnings
        assert warning.endswith("; ignored")
    place.rmdir()
    assert left(job) == Results()


def test_files_over_their_limits_are_cut_at_a_line_and_that_is_told(job: Path) -> None:
    (job / "github/output").write_text("a=1\n" + "#" * MAX_OUTPUT_FILE)
    (job / "github/summary").write_text("row\n" * MAX_SUMMARY)
    found = left(job)
    assert found.outputs == {"a": "1"}
    assert len(found.summary) == MAX_SUMMARY // 4
    assert [warning.split(":")[0] for warning in found.warnings] == ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"]
    for file in ("output", "summary"):
        os.truncate(job / "github" / file, 1 << 40)
    assert "longer than" in left(job).warnings[0]


def test_a_job_keeps_so_many_bytes_of_outputs_and_names_what_is_left_out(job: Path) -> None:
    (job / "github/output").write_text(f"small=1\nlarge={'x' * 60}\nafter=2\n")
    found = left(job, room=20)
    assert found.outputs == {"small": "1", "after": "2"}
    (warning,) = found.warnings
    assert warning == f"GITHUB_OUTPUT: large: over {MAX_JOB_OUTPUTS} bytes of outputs in the job; left out"


def test_so_many_outputs_and_no_more(job: Path) -> None:
    (job / "github/output").write_text("".join(f"o{n}={n}\n" for n in range(MAX_OUTPUTS + 30)))
    found = left(job)
    assert list(found.outputs) == [f"o{n}" for n in range(MAX_OUTPUTS)]
    assert len(found.warnings) == 11 and found.warnings[-1] == "and 20 more warnings like these"


@given(st.binary(max_size=400) | st.text("ab=<\n\r\0E-", max_size=60).map(str.encode), st.integers(-5, 200))
def test_whatever_is_written_the_record_stays_within_its_bound(data: bytes, room: int) -> None:
    outputs, warnings = _outputs(data, Masks(["ab"]), room)
    assert sum(size(name, value) for name, value in outputs.items()) <= max(0, room)
    assert all("ab" not in name and "ab" not in value and "\0" not in value for name, value in outputs.items())
    assert all(isinstance(warning, str) for warning in warnings)
