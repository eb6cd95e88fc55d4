"""When a session ends by itself, and as what. Rows D3, D4, D6, D8."""

from __future__ import annotations

import pytest

from pitstop_scheduler.deadlines import NEVER, due, longest, longest_extension, result_of_expiry
from pitstop_scheduler.model import Job, Org, Run
from pitstop_scheduler.transitions import TABLE, IllegalTransition, after, diagram

RUN = Run("r", "acme", "web", "q", "ada", 0, "REQ:1", "", ("r-1",), 600.0, 900.0, 3600.0, "cancel")


def paused(**fields: object) -> Job:
    job = Job("r-1", "r", "build", "default", True, status="paused", paused=1000.0)
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def test_nobody_has_entered_the_connect_window_counts_from_the_pause() -> None:
    assert due(paused(), RUN, Org()) == ("connect_window", 1600.0, 0.0)


def test_somebody_inside_only_idleness_counts_from_the_last_activity() -> None:
    job = paused(sessions=frozenset({"s"}), first_login=1100.0, active=1500.0)
    assert due(job, RUN, Org()) == ("idle", 2400.0, 2280.0)


def test_everybody_left_the_connect_window_starts_anew_but_not_the_maximum() -> None:
    job = paused(first_login=1100.0, paused=4200.0)
    assert due(job, RUN, Org()) == ("max_duration", 4700.0, 0.0)


def test_running_steps_are_never_cut_off() -> None:
    assert due(paused(status="running", sessions=frozenset({"s"}), first_login=1.0), RUN, Org()) == NEVER


def test_runs_that_wait_shorten_the_idle_limit_but_warn_first() -> None:
    org = Org(pressed=5000.0)
    busy = paused(sessions=frozenset({"s"}), first_login=4000.0, active=4990.0)
    assert due(busy, RUN, org) == ("pressure", 5290.0, 5170.0)
    idle_for_long = paused(sessions=frozenset({"s"}), first_login=4000.0, active=4200.0)
    assert due(idle_for_long, RUN, org) == ("idle", 5100.0, 4980.0)
    idle_for_less = paused(sessions=frozenset({"s"}), first_login=4000.0, active=4500.0)
    assert due(idle_for_less, RUN, org) == ("pressure", 5120.0, 5000.0)


def test_an_extension_keeps_the_session_within_the_cap_of_the_org() -> None:
    job = paused(sessions=frozenset({"s"}), first_login=1100.0, active=1500.0)
    assert longest_extension(job, Org(), 2000.0, 1800.0) == 3800.0
    assert longest_extension(job, Org(longest_session=600.0), 1200.0, 1800.0) == 1700.0
    job.keep_until = 3800.0
    assert due(job, RUN, Org()) == ("idle", 3800.0, 3680.0)
    job.keep_until = 6000.0
    assert due(job, RUN, Org()).at == 6000.0


def test_the_maximum_is_what_the_run_says_else_what_its_org_has_and_never_over_the_longest_session() -> None:
    assert longest(0, Org()) == 3600.0
    assert longest(0, Org(max_duration=7200.0)) == 7200.0
    assert longest(1800.0, Org(max_duration=7200.0)) == 1800.0
    assert longest(86400.0, Org()) == 7200.0
    assert longest(0, Org(longest_session=600.0)) == 600.0


@pytest.mark.parametrize(
    ("pause", "so_far", "result"),
    [
        ("at_end", "success", "success"),
        ("at_end", "failure", "failure"),
        ("direct", "success", "success"),
        ("on_failure", "failure", "failure"),
        ("on_failure", "success", "cancellation"),
        ("after_step", "success", "cancellation"),
        ("before_step", "success", "cancellation"),
    ],
)
def test_an_expired_job_ends_as_what_it_was(pause: str, so_far: str, result: str) -> None:
    assert result_of_expiry(paused(pause=pause, so_far=so_far)) == result


def test_what_the_table_does_not_allow_raises() -> None:
    with pytest.raises(IllegalTransition, match="a finished job cannot be granted"):
        after("finished", "granted")
    assert all(f"{old} --> {new}: {change}" in diagram() for (old, change), new in TABLE.items() if old != new)
