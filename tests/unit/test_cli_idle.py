"""Which sessions `pitstop cancel --ssh --idle-over` ends, and how it must be asked."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop_cli.commands.cancel import command, idle_sessions
from pitstop_cli.exits import USAGE, Failure

NOW = 1_790_000_000.0


def job(id: str, **fields: Any) -> dict[str, Any]:
    return {"job": id, "run": "r", "key": "build", "use": "debug", "active": 0.0, "paused_at": NOW - 5000, **fields}


def listed(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"runs": [{"run": "r", "actor": "ada"}], "jobs": list(jobs), "now": NOW}


def test_only_jobs_held_for_a_session_that_nobody_used_for_longer() -> None:
    found = idle_sessions(
        listed(
            job("r-1", active=NOW - 1900), job("r-2", active=NOW - 1700), job("r-3", use="run", active=NOW - 4000),
            job("r-4"), job("r-5", active=NOW - 4000, paused_at=NOW - 60), job("r-6", active=NOW - 1800),
        ),
        1800.0,
    )  # fmt: skip
    assert [(one["job"], one["idle"], one["actor"]) for one in found] == [
        ("r-4", 5000.0, "ada"),
        ("r-1", 1900.0, "ada"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--ssh"], ["--idle-over", "30m"], ["r", "--ssh", "--idle-over", "30m"], ["r", "--dry-run"],
     ["r", "--idle-over", "1m"]],
)  # fmt: skip
def test_what_to_cancel_must_be_said_and_said_once(arguments: list[str]) -> None:
    with pytest.raises(Failure) as failure:
        command.main(arguments, standalone_mode=False)
    assert failure.value.code == USAGE and "--idle-over 30m" in failure.value.next
