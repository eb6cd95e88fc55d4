"""Holds: the next failures of a job wait for a person, counted exactly. Row A11."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.test_scheduler_grants import Desk

from pitstop_common import messages as m
from pitstop_common.limits import MAX_HOLDS
from pitstop_scheduler import changes as c
from pitstop_scheduler.effects import Publish, effects

HOST: dict[str, Any] = {"host": "h", "incarnation": "1"}


def asked(run: str, *keys: str, ref: str = "main", project: str = "web", org: str = "acme") -> m.RunAccepted:
    named = enumerate(keys or ("build",), 1)
    jobs = tuple(m.AcceptedJob(job=f"{run}-{n}", key=key, pool="default") for n, key in named)
    return m.RunAccepted(id=run, time="", org=org, run=run, project=project, jobs=jobs, source=f"REQ:{run}", ref=ref,
                         retry="infrastructure")  # fmt: skip


class Floor(Desk):
    """A desk with a hold `x`, and a host that says things."""

    def __init__(self, **hold: Any) -> None:
        super().__init__(room=99)
        self.serial = 0
        if hold:
            self.hold(**hold)

    def hold(self, hold: str = "x", **fields: Any) -> list[c.AnyChange]:
        given = {"project": "web", "user": "ada", "by": "ada", "until": 1000.0, **fields}
        return self.tell(m.HoldSet(id="h", time="", org="acme", run="_", hold=hold, **given))

    def start(self, run: str, *keys: str, **fields: Any) -> list[str]:
        """The holds that its jobs start with."""
        changes = self.tell(asked(run, *keys, **fields))
        return [change.hold for change in changes if isinstance(change, c.Granted)]

    def says(self, job: str, kind: type[m.HostFact], **fields: Any) -> list[c.AnyChange]:
        self.serial += 1
        known = self.state.jobs[job]
        return self.tell(kind(id=f"f{self.serial}", time="", org="acme", run=known.run, job=job,
                              attempt=known.attempt, serial=self.serial, **HOST, **fields))  # type: ignore[arg-type]  # fmt: skip

    def fails(self, job: str) -> list[str]:
        """The kinds of changes when the job waits at its failure."""
        self.says(job, m.JobClaimed)
        self.says(job, m.SandboxReady)
        hold = self.state.jobs[job].hold
        changes = self.says(job, m.JobPaused, reason="on_failure", so_far="failure", hold=hold.id if hold else "")
        return [type(change).__name__ for change in changes if not isinstance(change, c.Deadline | c.Reported)]

    @property
    def left(self) -> dict[str, int]:
        return {hold.id: hold.left for hold in self.state.org("acme").holds.values() if hold.left}


@pytest.mark.parametrize(
    ("hold", "run", "matches"),
    [
        ({"count": 1}, {}, True),
        ({"key": "build"}, {}, True),
        ({"key": "lint"}, {}, False),
        ({"branch": "main"}, {}, True),
        ({"branch": "refs/heads/main"}, {}, True),
        ({"branch": "main"}, {"ref": "refs/heads/main"}, True),
        ({"branch": "main"}, {"ref": "next"}, False),
        ({"branch": "main"}, {"ref": ""}, False),
        ({"project": "api"}, {}, False),
        ({"count": 1}, {"org": "beta"}, False),
        ({"until": 1.5}, {}, False),
    ],
)
def test_a_start_carries_the_hold_that_is_armed_for_it(
    hold: dict[str, Any], run: dict[str, Any], matches: bool
) -> None:
    assert Floor(**hold).start("a", **run) == ["x" if matches else ""]


def test_of_several_the_oldest_is_taken_and_an_id_is_set_once() -> None:
    floor = Floor(key="build", count=2)
    floor.hold("y")
    assert floor.hold("x", count=9) == [] and floor.left == {"x": 2, "y": 1}
    assert floor.start("a", "build", "lint") == ["x", "y"]


def test_each_job_counts_once_and_the_last_one_uses_it_up() -> None:
    floor = Floor(count=2)
    floor.start("a", "build", "lint", "test")
    assert floor.fails("a-1") == ["Paused", "HoldUsed"] and floor.left == {"x": 1}
    assert floor.says("a-1", m.JobPaused, reason="on_failure", hold="x") != [] and floor.left == {"x": 1}
    assert floor.fails("a-2") == ["Paused", "HoldUsed"] and floor.left == {}
    assert floor.fails("a-3") == ["Paused", "Continued"]
    assert [floor.state.jobs[f"a-{n}"].hold.used for n in (1, 2, 3)] == [True, True, False]  # type: ignore[union-attr]
    assert floor.start("b") == [""]


def test_a_hold_that_is_removed_or_over_meanwhile_lets_the_job_go_on() -> None:
    floor = Floor(count=5)
    floor.start("a", "build", "lint")
    floor.tell(m.HoldRemove(id="r", time="", org="beta", run="_", hold="x"))
    assert floor.left == {"x": 5}
    floor.tell(m.HoldRemove(id="r", time="", org="acme", run="_", hold="x"))
    assert floor.fails("a-1") == ["Paused", "Continued"]
    late = Floor(until=4.5)
    late.start("a")
    assert late.fails("a-1") == ["Paused", "Continued"]
    late.hold("y")
    assert list(late.state.org("acme").holds) == ["y"]  # and what is over is forgotten


def test_a_hold_that_is_said_again_after_its_end_is_not_made_anew() -> None:
    floor = Floor(count=1)
    floor.tell(m.HoldRemove(id="r", time="", org="acme", run="_", hold="x"))
    assert floor.hold() == [] and floor.left == {}
    used = Floor(count=1)
    used.start("a")
    used.fails("a-1")
    assert used.hold() == [] and used.left == {}
    assert used.hold("late", until=2.0) == []


def test_the_command_to_go_on_names_its_cause() -> None:
    floor = Floor(count=1)
    floor.start("a", "build", "lint")
    floor.fails("a-1")
    floor.says("a-2", m.JobClaimed)
    floor.says("a-2", m.SandboxReady)
    changes = floor.says("a-2", m.JobPaused, reason="on_failure", hold="x")
    record = c.Record(1, 1, "me", floor.sequence, 9.0, 0, tuple(changes))
    sent = [one for one in effects(floor.state, record, 9) if isinstance(one, Publish) and one.subject == "work.host.h"]
    command = m.decode_command(sent[0].data)
    assert isinstance(command, m.Resume) and (command.job, command.reason) == ("a-2", m.HOLD_OVER)


def test_a_lost_host_gives_the_next_attempt_a_hold_of_its_own() -> None:
    floor = Floor(count=2)
    floor.start("a")
    floor.fails("a-1")
    floor.tell(m.SandboxLost(id="l", time="", org="acme", run="a", job="a-1", attempt=1, **HOST))
    assert floor.state.jobs["a-1"].attempt == 2
    assert floor.fails("a-1") == ["Paused", "HoldUsed"] and floor.left == {}


def test_an_org_has_so_many_holds_and_no_more() -> None:
    floor = Floor()
    for number in range(MAX_HOLDS + 5):
        floor.hold(f"n{number}")
    assert len(floor.left) == MAX_HOLDS
    for number in range(MAX_HOLDS):
        floor.tell(m.HoldRemove(id="r", time="", org="acme", run="_", hold=f"n{number}"))
    assert floor.hold("another") != [] and floor.left == {"another": 1}
