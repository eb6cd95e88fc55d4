"""A fold as bytes: back the same, whatever goes on meanwhile; and what it remembers of ended runs is bounded."""

from __future__ import annotations

import time
from itertools import count

import pytest

from pitstop_common.limits import KNOWN_FOR
from pitstop_common.roles import ProjectRules
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot import differences, frames, freeze, restore

PAUSE = 0.05
"""Decisions wait for a slice of a snapshot at most so many seconds."""


class History:
    """Records one after another, folded."""

    def __init__(self) -> None:
        self.state = State()
        self.sequences = count(1)
        self.runs = 0

    def commit(self, *changes: c.AnyChange, now: float = 1000.0) -> None:
        head = self.state.head
        record = c.Record(1, head, "me", head, now, head, changes, head)
        fold(self.state, c.decode_record(c.encode_record(record)), next(self.sequences))

    def queue(self, jobs: int = 1, *, org: str = "acme", priority: int = 0, now: float = 1000.0) -> str:
        self.runs += 1
        run = f"r{self.runs:011}"
        ids = tuple((f"{run}-{n}", f"k{n}", "default", False) for n in range(1, jobs + 1))
        self.commit(c.Queued(run, org, "web", f"q{run}", "ada", priority, f"REQ:{self.runs}", "t", ids, 600, 900, 3600,
                             "cancel", 1, "x"), now=now)  # fmt: skip
        return run

    def end(self, run: str, now: float = 1000.0) -> None:
        self.commit(c.Granted(f"{run}-1", 1, True, 0.0), now=now)
        self.commit(c.Ended(f"{run}-1", 1, "success", "", "x"), c.RunEnded(run, "success", "", "x"), now=now)

    def forget(self, now: float) -> None:
        self.commit(now=now)
        self.commit(now=now)


def read(data: bytes) -> State:
    state = State()
    for part in restore(data):
        state = part
    return state


def test_a_state_comes_back_the_same() -> None:
    history = History()
    for number in range(600):
        run = history.queue(1 + number % 3, org=f"o{number % 7}", priority=number % 5)
        if number % 4 == 0:
            history.commit(c.Granted(f"{run}-1", 1, True, 0.5))
    for number in range(300):
        history.end(history.queue(org=f"o{number % 3}"))
    history.commit(c.Room("h1", "i", "default", 4, 1), c.Defaults(1, 2, 3), c.Pressed("o1", True))
    history.commit(c.RunEnded(history.queue(), "success", "", "x"))
    state = history.state
    assert state.known and state.queues and state.ended
    back = read(b"".join(frames(freeze(state))))
    assert differences(state, back) == []
    assert differences(state, State()) != []


def test_a_snapshot_holds_what_was_when_it_began() -> None:
    history = History()
    first, second, third = (history.queue() for _ in range(3))
    history.commit(c.Granted(f"{first}-1", 1, True, 0.0))
    whole = b"".join(frames(freeze(history.state)))
    pieces = frames(freeze(history.state))
    written = next(pieces)
    history.commit(c.Claimed(f"{first}-1", 1, "h1", "i", "key"), c.Granted(f"{second}-1", 1, True, 0.0))
    history.end(third)
    history.commit(c.Limits("acme", 1, 2, {"web": 1}, 300.0, 7200.0, 5400.0))
    history.queue()
    history.forget(1001.0)
    assert written + b"".join(pieces) == whole


def test_roles_and_rules_are_in_a_snapshot_and_in_the_log() -> None:
    history = History()
    limits = c.Limits(
        "acme", 1, 2, {}, 300.0, 7200.0, 3600.0, {"ada": "admin", "*": "read"}, {"web": ProjectRules(ssh=False)}
    )  # fmt: skip
    history.commit(limits)
    back = read(b"".join(frames(freeze(history.state)))).org("acme")
    assert (back.roles, back.rules) == ({"ada": "admin", "*": "read"}, {"web": ProjectRules(ssh=False)})
    record = c.Record(1, 1, "o", 0, 0.0, 0, (limits,))
    assert c.decode_record(c.encode_record(record)) == record


@pytest.mark.parametrize("cut", [3, 10, -1])
def test_bytes_that_are_cut_off_are_refused(cut: int) -> None:
    history = History()
    history.queue()
    data = b"".join(frames(freeze(history.state)))
    with pytest.raises(ValueError):
        read(data[:cut])


def test_ended_runs_are_known_for_a_week_and_then_forgotten() -> None:
    history = History()
    old = history.queue(now=1000.0)
    history.end(old, now=1000.0)
    history.forget(1000.0)
    young = history.queue(now=90_000.0)
    history.end(young, now=90_000.0)
    history.forget(90_000.0)
    history.commit(now=1000.0 + KNOWN_FOR)
    assert (history.state.source_of(old), history.state.source_of(young)) == ("REQ:1", "REQ:2")
    history.commit(now=80_000.0 + KNOWN_FOR)
    assert (history.state.source_of(old), history.state.source_of(young)) == (None, "REQ:2")
    history.commit(now=100_000.0 + KNOWN_FOR)
    assert (history.state.known, list(history.state.known_by)) == ({}, [])


def test_decisions_wait_for_no_slice_of_a_large_snapshot_for_long() -> None:
    history = History()
    for _ in range(2000):
        history.queue(50)
    history.state.known = {f"k{number:011}": f"REQ:{number}" for number in range(100_000)}
    slices = []
    began = time.thread_time()
    pieces = frames(freeze(history.state))
    for _ in pieces:
        slices.append(time.thread_time() - began)
        began = time.thread_time()
    assert len(slices) > 400
    assert max(slices) < PAUSE
