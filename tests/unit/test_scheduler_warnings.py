"""A warning is words for people: whatever the deadline, it resumes, stops and grants nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.effects import Publish, effects
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.tick import Stored
from pitstop_scheduler.words import warning

RUN, JOB = "abcdefghijkl", "abcdefghijkl-1"
WHO: Any = {"org": "acme", "run": RUN, "job": JOB, "attempt": 1, "host": "h", "incarnation": "1", "time": ""}


def commit(state: State, *facts: m.Fact, at: float) -> tuple[c.AnyChange, ...]:
    stored = [Stored(state.watermark + n, at, fact) for n, fact in enumerate(facts, 1)]
    decision = decide(state, stored, state.now)
    record = c.Record(1, state.head + 1, "me", decision.watermark, decision.now, 0, decision.changes, state.head)
    fold(state, record, state.head + 1)
    return decision.changes


def entered(on_expiry: str) -> State:
    """A job that is paused, with a person inside."""
    state = State()
    fold(state, c.Record(1, 1, "me", 0, 0.0, 0, (c.Defaults(0, 0, 0),), 0), 1)
    accepted = m.RunAccepted(id=RUN, time="", org="acme", run=RUN, project="web", request="r", source="REQ:1",
                             jobs=(m.AcceptedJob(job=JOB, key="k", pool="default"),),
                             on_expiry="resume" if on_expiry == "resume" else "cancel")  # fmt: skip
    room = m.SandboxRoom(id="n", time="", org="_", run="_", host="h", incarnation="1", pool="default", capacity=1,
                         serial=1)  # fmt: skip
    commit(state, room, accepted, at=1000.0)
    commit(state, m.JobClaimed(id="1", serial=1, **WHO), m.SandboxReady(id="2", serial=2, **WHO), at=1001.0)
    paused = m.JobPaused(id="3", serial=3, reason="on_failure", so_far="failure", **WHO)
    login = m.SshConnected(id="4", serial=4, session="s", user="ada", fingerprint="f", **WHO)
    commit(state, paused, login, at=1002.0)
    job = state.jobs[JOB]
    assert job.status == "paused" and job.sessions and job.deadline
    return state


@given(
    on_expiry=st.sampled_from(["resume", "cancel"]), back=st.integers(-1, 1), late=st.floats(-2000, 2000),
    reason=st.sampled_from(["idle", "connect_window", "max_duration", "pressure"]),
)  # fmt: skip
def test_it_changes_nothing_but_that_it_was_said(on_expiry: str, back: int, late: float, reason: str) -> None:
    state = entered(on_expiry)
    before = msgspec.structs.astuple(state.jobs[JOB])
    revision = state.jobs[JOB].revision
    fact = m.SessionWarned(id="w", time="", org="acme", run=RUN, job=JOB, attempt=1, revision=revision - back,
                           reason=msgspec.convert(reason, m.ExpiryReason))  # fmt: skip
    changes = commit(state, fact, fact, at=state.jobs[JOB].deadline + late)
    assert [type(change) for change in changes] == ([c.Warned] if back == 0 else [])
    job = state.jobs[JOB]
    assert job.status == "paused"
    after = msgspec.structs.astuple(msgspec.structs.replace(job, warned=0)) if back == 0 else None
    assert back != 0 or after == before
    record = c.Record(1, state.head, "me", state.watermark, state.now, 0, changes, state.head - 1)
    said = [effect for effect in effects(state, record, state.head) if isinstance(effect, Publish)]
    commands = [m.decode_command(one.data) for one in said if one.subject.startswith("work.")]
    assert [type(command) for command in commands] == ([m.Warn] if back == 0 else [])


@pytest.mark.parametrize(("left", "said"), [(0.0, "1 s"), (0.4, "1 s"), (1.6, "2 s"), (60.0, "60 s"), (120.0, "2 min")])
def test_what_is_left_is_never_nothing(left: float, said: str) -> None:
    assert f"ends in {said}." in warning("idle", left, JOB)
