"""Who gets the next slot, and why a job waits: limits, weights, priority, age. Rows D1 and D2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler import grants
from pitstop_scheduler.decide import decide
from pitstop_scheduler.fold import apply, fold
from pitstop_scheduler.grants import reason_to_wait
from pitstop_scheduler.model import Job, State
from pitstop_scheduler.tick import Stored


class Desk:
    """A scheduler without a server."""

    def __init__(self, *, org: int = 0, project: int = 0, pool: int = 0, room: int = 0) -> None:
        self.state = State()
        self.sequence = 0
        apply(self.state, c.Defaults(org, project, pool))
        if room:
            apply(self.state, c.Room("h", "1", "default", room, 1))

    def tell(self, *facts: m.Fact) -> list[c.AnyChange]:
        stored = [Stored(self.sequence + n, 1.0 * (self.sequence + n), fact) for n, fact in enumerate(facts, start=1)]
        self.sequence += len(facts)
        decision = decide(self.state, stored, 0.0)
        fold(self.state, c.Record(1, 1, "me", decision.watermark, decision.now, 0, decision.changes), self.sequence)
        return list(decision.changes)

    def grants(self, *facts: m.Fact) -> list[str]:
        return [change.job for change in self.tell(*facts) if isinstance(change, c.Granted)]


def asked(run: str, org: str = "acme", project: str = "web", priority: int = 0, pool: str = "default") -> m.RunAccepted:
    job = m.AcceptedJob(job=f"{run}-1", key="build", pool=pool)
    return m.RunAccepted(id=run, time="", org=org, run=run, project=project, priority=priority, jobs=(job,),
                         source=f"REQ:{run}")  # fmt: skip


def configured(org: str, slots: int, weight: int = 1, **projects: int) -> m.OrgConfigured:
    return m.OrgConfigured(id="o", time="", org=org, run="_", slots=slots, weight=weight, projects=projects)


def room(capacity: int, serial: int = 2) -> m.SandboxRoom:
    return m.SandboxRoom(id=f"room{serial}", time="", org="_", run="_", host="h", incarnation="1", pool="default",
                         capacity=capacity, serial=serial)  # fmt: skip


def test_a_start_waits_in_the_queue_until_a_host_has_room() -> None:
    desk = Desk()
    assert desk.grants(asked("a"), asked("b")) == []
    job = desk.state.jobs["a-1"]
    assert reason_to_wait(desk.state, job) == "no sandbox host of pool default is up"
    assert desk.grants(room(1)) == ["a-1"]
    assert "no room (all 1 places are taken)" in reason_to_wait(desk.state, desk.state.jobs["b-1"])


def test_org_project_and_pool_limits_each_hold_and_name_themselves() -> None:
    assert Desk(org=1, room=9).grants(asked("a"), asked("b"), asked("c", org="beta")) == ["a-1", "c-1"]
    assert Desk(project=1, room=9).grants(asked("a"), asked("b"), asked("c", project="api")) == ["a-1", "c-1"]
    assert Desk(pool=2, room=9).grants(asked("a"), asked("b"), asked("c")) == ["a-1", "b-1"]
    desk = Desk(org=1, room=9)
    desk.tell(asked("a"), asked("b"))
    assert reason_to_wait(desk.state, desk.state.jobs["b-1"]) == "the only slot of org acme is in use"


def test_a_configured_org_keeps_its_own_limits_and_lower_ones_never_kill() -> None:
    desk = Desk(org=1, room=9)
    assert desk.grants(configured("acme", 3, web=2), asked("a"), asked("b"), asked("c"), asked("d", project="api")) == [
        "a-1", "b-1", "d-1",
    ]  # fmt: skip
    changes = desk.tell(configured("acme", 1))
    assert not any(isinstance(change, c.Stopped | c.Ended) for change in changes)
    assert desk.state.orgs["acme"].used == 3


def pool_of(slots: int | None, name: str = "default") -> m.PoolConfigured:
    return m.PoolConfigured(id="o", time="", org="_", run="_", pool=name, slots=slots)


def test_a_configured_pool_keeps_its_own_limit_over_all_orgs_and_a_lower_one_never_kills() -> None:
    desk = Desk(pool=1, room=9)
    assert desk.grants(asked("a"), asked("b"), asked("c", org="beta"), asked("d", org="beta")) == ["a-1"]
    assert desk.grants(pool_of(3)) == ["c-1", "b-1"], "a higher one is used at once, in turn"
    assert desk.tell(pool_of(3)) == [], "said again it changes nothing"
    changes = desk.tell(pool_of(2))
    assert [type(change) for change in changes] == [c.PoolLimit], "it ends nothing"
    assert reason_to_wait(desk.state, desk.state.jobs["d-1"]) == "all 2 slots of pool default are in use"
    end = m.RunCancel(id="e", time="", org="acme", run="a")
    assert desk.grants(end) == [], "two still hold a slot"
    assert desk.grants(pool_of(0)) == ["d-1"], "0 is no limit"
    desk.tell(pool_of(None), asked("e"))
    assert reason_to_wait(desk.state, desk.state.jobs["e-1"]) == "the only slot of pool default is in use"
    assert desk.grants(pool_of(5, "other")) == []


def test_inside_an_org_priority_goes_before_age() -> None:
    desk = Desk()
    desk.tell(asked("old"), asked("new"), asked("urgent", priority=5))
    assert desk.grants(room(3)) == ["urgent-1", "old-1", "new-1"]


def test_a_job_that_cannot_run_now_does_not_block_those_behind_it() -> None:
    desk = Desk(room=2)
    assert desk.grants(asked("elsewhere", pool="gpu"), asked("here")) == ["here-1"]


@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=4), room_=st.integers(4, 40))
def test_orgs_share_by_weight_within_one_turn(weights: list[int], room_: int) -> None:
    desk = Desk()
    orgs = [f"org{n}" for n in range(len(weights))]
    desk.tell(*(configured(org, 0, weight) for org, weight in zip(orgs, weights, strict=True)))
    desk.tell(*(asked(f"{org}r{n}", org=org) for org in orgs for n in range(room_)))
    granted = desk.grants(room(room_))
    assert len(granted) == room_
    for org, weight in zip(orgs, weights, strict=True):
        share = sum(job.startswith(f"{org}r") for job in granted)
        assert abs(share - room_ * weight / sum(weights)) <= 1.5


def test_an_org_that_slept_does_not_catch_up_at_the_cost_of_others() -> None:
    desk = Desk()
    desk.tell(*(asked(f"a{n}") for n in range(20)))
    desk.tell(room(10))
    desk.tell(*(asked(f"b{n}", org="beta") for n in range(20)))
    late = desk.grants(room(20, serial=3))
    assert [sum(job.startswith(name) for job in late) for name in ("a", "b")] == [5, 5]


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that a tick asks about."""
    looked: list[str] = []

    def reason(state: State, job: Job) -> str:
        looked.append(job.id)
        return reason_to_wait(state, job)

    monkeypatch.setattr(grants, "reason_to_wait", reason)
    return looked


def test_a_freed_slot_goes_on_without_a_look_at_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hundred thousand waiting it took a quarter of a second."""
    desk = Desk(room=1)
    for number in range(50):
        desk.tell(*(asked(f"r{number}.{n}", org=f"o{number}") for n in range(20)))
    (held,) = [job for job in desk.state.jobs.values() if job.status == "starting"]
    looked = count_looks(monkeypatch)
    assert desk.grants(m.RunCancel(id="c", time="", org="o0", run=held.run)) == ["r1.0-1"]
    assert looked == ["r1.0-1"]


def test_orgs_at_their_limits_are_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(org=1, room=1000)
    for number in range(50):
        desk.tell(*(asked(f"r{number}.{n}", org=f"o{number}") for n in range(20)))
    looked = count_looks(monkeypatch)
    assert desk.grants(m.RunCancel(id="c", time="", org="o7", run="r7.0")) == ["r7.1-1"]
    assert looked == ["r7.1-1"]
