"""Who holds the slots of an org, and who waits where and why. Row D12."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_scheduler_grants import Desk, asked, configured

from pitstop_common.limits import MAX_QUEUE_SHOWN
from pitstop_scheduler.holding import slots_of


def seen(desk: Desk, org: str = "acme", *projects: str) -> dict[str, Any]:
    return slots_of(desk.state, org, lambda project: not projects or project in projects)


def test_holders_and_the_queue_with_its_reasons() -> None:
    desk = Desk(org=1, room=5)
    desk.tell(asked("a"))
    desk.tell(asked("b"), asked("c", priority=5), asked("d", org="other"))
    found = seen(desk)
    assert [(job.job, job.use) for job in found["jobs"]] == [("a-1", "run")]
    assert [(one.position, one.job, one.reason) for one in found["queue"]] == [
        (1, "c-1", "the only slot of org acme is in use"),
        (2, "b-1", "the only slot of org acme is in use"),
    ]
    assert {run.run for run in found["runs"]} == {"a", "b", "c"}
    assert (found["waiting"], found["slots"]) == (2, {"limit": 1, "used": 1, "debug": 0})


def test_other_projects_keep_their_places_and_are_not_shown() -> None:
    desk = Desk(room=5)
    desk.tell(configured("acme", 1))
    desk.tell(asked("a", project="web"), asked("b", project="api"), asked("c", project="web"))
    found = seen(desk, "acme", "web")
    assert [(one.position, one.job) for one in found["queue"]] == [(2, "c-1")]
    assert (found["slots"]["used"], found["waiting"]) == (1, 2)


@given(st.lists(st.integers(-100, 100), max_size=120))
def test_all_that_wait_are_counted_and_the_head_is_shown_in_order(priorities: list[int]) -> None:
    desk = Desk()
    desk.tell(*(asked(f"r{number}", priority=priority) for number, priority in enumerate(priorities)))
    found = seen(desk)
    assert found["waiting"] == len(priorities)
    assert [one.position for one in found["queue"]] == list(range(1, min(len(priorities), MAX_QUEUE_SHOWN) + 1))
    assert [one.priority for one in found["queue"]] == sorted(priorities, reverse=True)[:MAX_QUEUE_SHOWN]
