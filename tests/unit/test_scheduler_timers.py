"""Timers of deadlines: which are armed, which are taken away, and which are armed once more. Row D9."""

from __future__ import annotations

import msgspec

from pitstop_common.messages import Fired
from pitstop_scheduler import changes as c
from pitstop_scheduler.effects import Disarm, Publish, effects, overdue
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State

QUEUED = c.Queued("r", "acme", "web", "q", "ada", 0, "REQ:1", "", (("r-1", "job", "default", True),), 600.0, 900.0,
                  3600.0, "cancel", 1, "")  # fmt: skip
PAUSED = (c.Granted("r-1", 1, True, 0.0), c.Claimed("r-1", 1, "h", "1"), c.Ready("r-1", ""),
          c.Paused("r-1", "at_end", "success", ""))  # fmt: skip


class Log:
    """Records one after the other, and what each brings about once all are folded."""

    def __init__(self) -> None:
        self.state = State()
        self.records: list[c.Record] = []

    def commit(self, *changes: c.AnyChange) -> int:
        """Returns its sequence."""
        self.records.append(c.Record(1, len(self.records), "me", 0, 1000.0, 0, changes))
        fold(self.state, self.records[-1], len(self.records))
        return len(self.records)

    def timers(self, sequence: int) -> list[Publish | Disarm]:
        """The effects on TIMERS of a record, by the state as it is now."""
        found = effects(self.state, self.records[sequence - 1], sequence)
        return [one for one in found if isinstance(one, Publish | Disarm) and one.subject.startswith("timer.")]


def paused() -> Log:
    log = Log()
    log.commit(QUEUED, *PAUSED)
    return log


def test_a_living_job_has_no_timer_taken_away() -> None:
    """A purge takes its own time: it could meet the timer that is armed next, and that deadline would never come."""
    log = paused()
    log.commit(c.Deadline("r-1", "connect_window", 1600.0, 0.0, 1))
    gone = log.commit(c.Resumed("r-1", ""), c.Deadline("r-1", "", 0.0, 0.0, 2))
    assert log.timers(gone) == []


def test_a_job_that_is_over_has_all_its_timers_taken_away() -> None:
    log = paused()
    log.commit(c.Deadline("r-1", "connect_window", 1600.0, 0.0, 1))
    over = log.commit(c.Ended("r-1", 1, "success", "", ""), c.Deadline("r-1", "", 0.0, 0.0, 2))
    assert [one.subject for one in log.timers(over)] == ["timer.session.r-1.1", "timer.warning.r-1.1"]
    assert all(isinstance(one, Disarm) for one in log.timers(over))


def test_an_overtaken_timer_is_not_armed_again() -> None:
    log = paused()
    first = log.commit(c.Deadline("r-1", "connect_window", 1600.0, 0.0, 1))
    second = log.commit(c.Deadline("r-1", "connect_window", 1700.0, 0.0, 2))
    assert log.timers(first) == []
    (armed,) = log.timers(second)
    assert isinstance(armed, Publish) and armed.arms == ("r-1", 2)


def test_a_deadline_that_did_not_come_is_armed_once_more() -> None:
    log = paused()
    log.commit(c.Deadline("r-1", "connect_window", 1600.0, 0.0, 1))
    assert overdue(log.state, 1599.0, "x") == []
    (armed,) = overdue(log.state, 1601.0, "x")
    fired = msgspec.json.decode(armed.data, type=Fired)
    assert (armed.subject, fired.revision, fired.reason) == ("timer.session.r-1.1", 1, "connect_window")
    (again,) = overdue(log.state, 1601.0, "y")
    assert armed.headers["Nats-Msg-Id"] != again.headers["Nats-Msg-Id"]


def test_a_job_without_a_deadline_is_never_overdue() -> None:
    assert overdue(paused().state, 1e12, "x") == []
