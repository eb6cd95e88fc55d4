"""A job whose host is lost is tried again once where its request allows it, and never after a person was inside."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.test_scheduler_grants import Desk, room

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.effects import Publish, effects
from pitstop_scheduler.grants import reason_to_wait

HOST: dict[str, Any] = {"host": "h", "incarnation": "1"}


def asked(run: str, *, retry: bool = True, project: str = "web") -> m.RunAccepted:
    jobs = (m.AcceptedJob(job=f"{run}-1", key="build", pool="default"),)
    return m.RunAccepted(id=run, time="", org="acme", run=run, project=project, jobs=jobs, source=f"REQ:{run}",
                         retry="infrastructure" if retry else "")  # fmt: skip


class Floor(Desk):
    """A desk whose host says things of `a-1`."""

    def __init__(self, *, retry: bool = True, slots: int = 1) -> None:
        super().__init__(org=slots, room=9)
        self.serial = 0
        self.tell(asked("a", retry=retry))

    def says(self, kind: type[m.HostFact], attempt: int = 1, **fields: Any) -> list[c.AnyChange]:
        self.serial += 1
        fact = kind(id=f"f{self.serial}", time="", org="acme", run="a", job="a-1", attempt=attempt, serial=self.serial,
                    **HOST, **fields)  # fmt: skip
        return self.tell(fact)  # type: ignore[arg-type]

    def lost(self, job: str = "", attempt: int = 0, host: str = "h") -> list[c.AnyChange]:
        return self.tell(m.SandboxLost(id="l", time="", org="acme", run="a", job=job, attempt=attempt, host=host,
                                       incarnation="1"))  # fmt: skip

    def running(self) -> Floor:
        self.says(m.JobClaimed)
        self.says(m.SandboxReady)
        return self

    @property
    def place(self) -> tuple[str, int, tuple[str, ...]]:
        job = self.state.jobs["a-1"]
        return job.status, job.attempt, job.earlier


@pytest.mark.parametrize("said", [1, 2])
def test_a_lost_host_gives_the_job_and_its_slot_back_once(said: int) -> None:
    floor = Floor()
    for kind in (m.JobClaimed, m.SandboxReady)[:said]:
        floor.says(kind)
    before = floor.state.jobs["a-1"].granted
    changes = floor.lost()
    assert [one.attempt for one in changes if isinstance(one, c.Retried)] == [1]
    assert floor.place == ("queued", 1, ("host_lost",))
    assert (floor.state.orgs["acme"].used, floor.state.pools["default"].room) == (0, 0)
    assert floor.grants(room(1)) == ["a-1"]
    assert floor.place == ("starting", 2, ("host_lost",)) and floor.state.jobs["a-1"].granted > before
    assert floor.state.orgs["acme"].used == 1


def test_a_second_loss_ends_it_and_so_does_the_first_where_the_request_does_not_allow_more() -> None:
    floor = Floor().running()
    floor.lost()
    floor.tell(room(1))
    floor.lost(job="a-1", attempt=2)
    job = floor.state.jobs.get("a-1")
    assert job is not None and (job.status, job.result, job.reason) == ("finished", "error", "host_lost")
    plain = Floor(retry=False).running()
    plain.lost()
    assert plain.state.jobs["a-1"].status == "finished"


def test_never_after_a_person_has_been_inside_even_if_they_have_left() -> None:
    floor = Floor().running()
    floor.says(m.SshConnected, session="s", user="ada", fingerprint="f")
    floor.says(m.SshClosed, session="s", user="ada", reason="exit")
    floor.lost()
    assert floor.place[0] == "finished"
    late = Floor().running()
    late.says(m.SshClosed, session="s", user="ada", reason="exit")  # that she entered was never heard
    late.lost()
    assert late.place[0] == "finished"


def test_late_words_of_the_lost_attempt_change_nothing_and_a_late_claim_is_told_to_stop() -> None:
    floor = Floor().running()
    floor.lost()
    assert [type(one) for one in floor.says(m.JobClaimed)] == [c.Stray]
    facts: tuple[tuple[type[m.HostFact], dict[str, Any]], ...] = (
        (m.SandboxReady, {}), (m.JobFinished, {"result": "success"}), (m.SandboxFailed, {"reason": "create_failed"}),
        (m.JobPaused, {"reason": "on_failure"}), (m.SshConnected, {"session": "s", "user": "a", "fingerprint": "f"}),
    )  # fmt: skip
    for kind, fields in facts:
        assert floor.says(kind, **fields) == []
    assert floor.lost() == floor.lost(job="a-1", attempt=1) == floor.lost(job="a-1", attempt=1, host="other") == []
    floor.tell(room(1))
    assert [type(one) for one in floor.says(m.JobClaimed)] == [c.Stray]
    assert floor.says(m.JobFinished, result="success") == floor.lost(job="a-1", attempt=1) == []
    assert floor.place == ("starting", 2, ("host_lost",))


@pytest.mark.parametrize(
    ("kind", "fields", "again"),
    [
        (m.SandboxFailed, {"reason": "create_failed"}, True),
        (m.SandboxFailed, {"reason": ""}, True),
        (m.SandboxFailed, {"reason": "image_missing"}, False),
        (m.JobFinished, {"result": "error", "reason": "host_isolated"}, True),
        (m.JobFinished, {"result": "error", "reason": "sandbox_lost"}, False),
        (m.JobFinished, {"result": "failure", "reason": ""}, False),
        (m.JobFinished, {"result": "cancellation", "reason": "host_lost"}, False),
    ],
)
def test_what_is_the_hosts_fault_is_retried_and_what_is_the_jobs_own_is_not(
    kind: type[m.HostFact], fields: dict[str, Any], again: bool
) -> None:
    floor = Floor().running()
    floor.says(kind, **fields)
    assert (floor.place[0] == "queued" or floor.place[1] == 2) is again


def test_a_job_that_is_being_cancelled_ends_with_its_host() -> None:
    floor = Floor().running()
    floor.tell(m.RunCancel(id="c", time="", org="acme", run="a"))
    floor.lost()
    job = floor.state.jobs["a-1"]
    assert (job.status, job.result) == ("finished", "cancellation")


def test_it_goes_back_to_its_old_place_behind_older_ones_that_were_passed_over() -> None:
    desk = Desk(org=3, room=9)
    desk.tell(m.OrgConfigured(id="o", time="", org="acme", run="_", slots=3, projects={"slow": 1}))
    assert desk.grants(asked("s1", project="slow"), asked("s2", project="slow"), asked("a")) == ["s1-1", "a-1"]
    desk.tell(m.JobClaimed(id="c", time="", org="acme", run="a", job="a-1", attempt=1, serial=1, **HOST))
    lost = m.SandboxLost(id="l", time="", org="_", run="_", **HOST)
    assert desk.grants(asked("b"), lost) == []
    desk.tell(asked("c"))
    assert list(desk.state.waiting("acme")) == ["s2-1", "a-1", "b-1", "c-1"]
    assert "no sandbox host" in reason_to_wait(desk.state, desk.state.jobs["a-1"])
    assert desk.grants(room(3)) == ["a-1", "b-1"]


def test_in_the_tick_of_its_loss_it_goes_before_those_that_came_after_it() -> None:
    desk = Desk(org=1, room=9)
    assert desk.grants(asked("a"), asked("b")) == ["a-1"]
    lost = m.JobFinished(id="f", time="", org="acme", run="a", job="a-1", attempt=1, serial=2, result="error",
                         reason="host_failed", **HOST)  # fmt: skip
    desk.tell(m.JobClaimed(id="c", time="", org="acme", run="a", job="a-1", attempt=1, serial=1, **HOST))
    assert desk.grants(asked("c"), lost) == ["a-1"]


def test_an_event_tells_which_attempt_was_lost_and_why() -> None:
    floor = Floor().running()
    changes = floor.lost()
    record = c.Record(1, 1, "me", floor.sequence, 9.0, 0, tuple(changes))
    said = [m.decode_event(one.data) for one in effects(floor.state, record, 9) if isinstance(one, Publish)]
    (event,) = said
    assert isinstance(event, m.JobRetried)
    assert (event.job, event.attempt, event.reason, event.org, event.run) == ("a-1", 1, "host_lost", "acme", "a")
