"""Pauses that somebody asks for while a step runs: from outside (`pitstop pause`), or from a shell inside. Pure."""

from __future__ import annotations

import msgspec

from pitstop_sandbox import flow, notices
from pitstop_sandbox.events import PauseWanted, Say
from pitstop_sandbox.model import Going, Pausing
from pitstop_sandbox.transitions import Status
from pitstop_sandbox.turn import Turn


def wanted(t: Turn, event: PauseWanted) -> None:
    """The scheduler passes on what a person wants. An older wish, or the same one again, changes nothing."""
    state = t.state
    if event.revision <= state.pause_revision or state.status in (Status.FINISHING, Status.FINISHED):
        return
    t.set(pause_revision=event.revision, last_cause=event.cause or state.last_cause)
    if event.off:
        _take_back(t, event)
    elif state.status in flow.PAUSING:  # it pauses for another reason; who asked may enter now
        t.set(guests=tuple(dict.fromkeys((*state.guests, event.by))))
        flow.say_paused(t)
    else:
        ask(t, event.by)


def ask(t: Turn, by: str) -> None:
    """From now on the end of the step in progress is a pause; before the first step, the end of that."""
    before = t.state.pausing or Pausing(by)
    users = (*before.users, by) if by and by not in before.users else before.users
    t.set(pausing=msgspec.structs.replace(before, users=users))
    if t.state.status is Status.STEPPING:
        flow.say_pausing(t, by)


def _take_back(t: Turn, event: PauseWanted) -> None:
    state = t.state
    if state.pausing is not None:
        t.set(pausing=None)
        text = notices.not_pausing(event.by)
        t.note([text])
        if state.shell_open:
            t.do(Say(text))
    elif state.paused == "forced" and not state.visitors:  # it came too late, and nobody has entered
        flow.go(t, Going("continue", event.by, event.cause))
