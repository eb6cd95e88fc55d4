"""Statuses in words."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pitstop_cli import words

NOW = 1_790_000_000.0


def entry(report: dict[str, Any] | None = None, **job: Any) -> dict[str, Any]:
    return {
        "job": {"job": "r-1", "key": "build", "org": "acme", "status": "running", "attempt": 1, "use": "run", **job},
        "report": report, "position": 0, "reason": "", "limit": 4, "used": 1, "allowed": [],
    }  # fmt: skip


def test_a_slot_says_whose_and_until_when() -> None:
    deadline = NOW + 600
    told = words.slot(entry(use="debug", deadline=deadline, deadline_reason="idle"), NOW)
    until = time.strftime("%H:%M", time.localtime(deadline))
    assert told == f"holds 1 of 4 slots of acme until {until}, unless somebody is active"
    assert words.slot(entry(use=""), NOW) == ""


def test_without_a_limit_it_is_just_a_slot() -> None:
    assert words.slot({**entry(), "limit": 0}, NOW) == "holds a slot of acme"


def test_a_queued_job_has_a_place_and_a_reason_and_no_command() -> None:
    waiting = {**entry(status="queued", use=""), "position": 3, "reason": "acme uses 4 of 4 slots"}
    page = "\n".join(words.job_lines(waiting, NOW))
    assert page == "job r-1  build  queued, position 3: acme uses 4 of 4 slots"


def test_a_paused_job_shows_the_command_and_who_is_let_in() -> None:
    ssh = {"command": "ssh -p 2222 r-1@relay", "host": "relay", "port": 2222, "user": "r-1"}
    report = {"paused": "after_step", "paused_step": 2, "ssh": ssh, "steps": []}
    paused = {**entry(report, status="paused"), "allowed": [{"user": "ada", "fingerprint": "SHA256:x"}]}
    assert list(words.job_lines(paused, NOW))[:3] == [
        "job r-1  build  paused after step 2", "  ssh -p 2222 r-1@relay", "    lets in ada  SHA256:x",
    ]  # fmt: skip
    ended = entry(report, status="finished", result="success", use="")
    assert "ssh -p" not in "\n".join(words.job_lines(ended, NOW))


def test_a_step_tells_its_tries_and_who_chose() -> None:
    step = {"index": 3, "name": "test\x1b[2J", "result": "failure", "exit_code": 2, "duration": 1.24, "attempts": 2,
            "choice": "retry", "by": "ada"}  # fmt: skip
    assert words.step_line(step) == "  3. test?[2J  failure (exit 2)  1.2 s  2 tries, retry by ada"


def test_steps_to_come_are_listed() -> None:
    coming = {**entry({"steps": [{"index": 1, "name": "a", "result": "success"}]}), "steps": ["a", "b"]}
    assert list(words.job_lines(coming, NOW))[-1] == "    2. b"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.44, "0.4 s"), (12.7, "12 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_lengths_of_time(seconds: float, told: str) -> None:
    assert words.span(seconds) == told
