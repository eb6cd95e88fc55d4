"""The rules of a job that runs: what an event changes, and what is to be done about it. Pure.

Goals: the same journal gives the same state and the same facts, byte for byte; an event that comes twice or late
changes nothing; whatever was begun and is not known to be done is found again in `pending`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pitstop_common.messages import (
    HOLD_OVER,
    SandboxFailed,
    SandboxReady,
    StepFinished,
)
from pitstop_sandbox import asides, flow, notices, people
from pitstop_sandbox.events import (
    Active,
    Asked,
    Create,
    Event,
    Exported,
    Instruction,
    Kill,
    PauseWanted,
    Remove,
    Removed,
    Replied,
    Resumed,
    RunStep,
    SandboxBroke,
    SandboxMade,
    SandboxSaid,
    SessionClosed,
    SessionOpened,
    ShellEnded,
    ShellStarted,
    StepEnded,
    Stopped,
    Stored,
    Tick,
    Used,
)
from pitstop_sandbox.model import Going, JobState
from pitstop_sandbox.transitions import Status, check_legal, check_reached
from pitstop_sandbox.turn import Turn, report


def decide(state: JobState, event: Event, now: float) -> tuple[JobState, tuple[Instruction, ...]]:
    """The next state, and what is new to do. Raises IllegalEvent; then nothing has changed."""
    check_legal(state.status, event)
    turn = Turn(state, now)
    _RULES[type(event)](turn, event)
    check_reached(state.status, event, turn.state.status)
    return turn.state, tuple(turn.instructions)


def pending(state: JobState) -> tuple[Instruction, ...]:
    """Everything that was begun and is not known to be done. Doing it again is harmless."""
    todo: list[Instruction] = []
    if state.status is Status.PREPARING:
        todo.append(Create())
    if state.in_step:
        tries = state.step(state.current).tries
        todo.append(RunStep(state.current, tries, state.asker))
        if state.killing:
            todo.append(Kill(state.current, tries, state.killing == "kill"))
    if state.status is Status.FINISHING and not state.removed:
        todo.append(Remove())
    return (*todo, *state.replies, *state.outbox)


def deadline(state: JobState) -> float | None:
    """When the next Tick is due; None: never, as things stand."""
    if not state.in_step:
        return None
    if state.killing:
        return state.kill_at if state.killing == "term" else None
    due = []
    if limit := state.spec(state.current).timeout:
        due.append(state.step_since + limit)
    if state.status is Status.STEPPING:
        due.append(_job_due(state))
    return min(due, default=None)


def _job_due(state: JobState) -> float:
    budget = state.job.timeout + (state.cleanup if state.timed_out else 0)
    return state.running_since + budget - state.ran


# -- sandbox -------------------------------------------------------------------------------------------------------


def _made(t: Turn, event: SandboxMade) -> None:
    t.set(
        backend=event.backend,
        image=event.image,
        notes=event.notes,
        shells=event.shells,
        image_env=event.env,
        ssh=event.ssh,
    )
    ssh = event.ssh if t.state.job.pause.any else None
    t.publish(SandboxReady, backend=event.backend, image=event.image, ssh=ssh)
    t.note(notices.header(t.state))
    flow.advance(t)


def _said(t: Turn, event: SandboxSaid) -> None:
    t.note([event.text])


def _broke(t: Turn, event: SandboxBroke) -> None:
    if t.state.status in (Status.FINISHING, Status.FINISHED):
        return
    if t.state.status is Status.PREPARING:
        t.publish(SandboxFailed, reason=event.code, message=event.message)
    t.note([f"error: {event.message}"])
    flow.finish(t, "error", reason=event.code, message=event.message)


def _removed(t: Turn, event: Removed) -> None:
    if t.state.removed:
        return
    t.set(removed=True, replies=())  # who asked is gone with the sandbox
    for session in t.state.sessions:
        people.leave(t, session, "stopped")
    flow.say_finished(t)


# -- steps ---------------------------------------------------------------------------------------------------------


def _step_ended(t: Turn, event: StepEnded) -> None:
    state = t.state
    if not state.in_step or (event.step, event.tries) != (state.current, state.step(state.current).tries):
        return
    result = flow.result_of(state, event)
    masks = (*state.masks, *(mask for mask in event.masks if mask not in state.masks))
    t.set(layer=event.exports, masks=masks, killing="", kill_at=0)
    duration = round(max(0.0, t.now - state.step_since), 3)
    t.set_step(event.step, result=result, exit_code=event.exit_code, duration=duration, error=event.error,
               outputs=event.outputs, tail=event.tail)  # fmt: skip
    flow.stop_clock(t)
    if event.error:
        t.note([f"error: step {event.step} ({state.spec(event.step).name}): {event.error}"])
    t.publish(StepFinished, step=event.step, name=state.spec(event.step).name, result=result,
              exit_code=event.exit_code, report=report(t.state))  # fmt: skip
    if state.status is Status.RETRYING:
        _retried(t, result)
    else:
        flow.after_step(t)


def _retried(t: Turn, result: str) -> None:
    done = t.state.step(t.state.current)
    if t.state.asker:
        code = done.exit_code if done.exit_code is not None else 1
        t.reply(t.state.asker, code or (0 if result == "success" else 1), done.error or f"the step ended: {result}")
    t.set(status=Status.PAUSED, asker="")
    if t.state.going is not None:
        flow.resume(t, t.state.going)


def _exported(t: Turn, event: Exported) -> None:
    if t.state.status in (Status.PAUSED, Status.WAITING):
        t.set(layer=event.exports)


def _tick(t: Turn, event: Tick) -> None:
    state = t.state
    due = deadline(state)
    if due is None or t.now < due:
        return
    if state.killing == "term":
        flow.kill(t, state.killed_for, force=True)
        return
    if state.status is Status.STEPPING and t.now >= _job_due(state):
        if state.timed_out:
            flow.finish(t, "timeout", message="the steps after the job's time limit took too long")
            return
        t.set(timed_out=True)
        t.note([f"error: the job ran longer than its limit of {state.job.timeout:g} s"])
        flow.kill(t, "job")
        return
    t.note([f"error: step {state.current} ran longer than its limit of {state.spec(state.current).timeout:g} s"])
    flow.kill(t, "step")


# -- requests ------------------------------------------------------------------------------------------------------


def _asked(t: Turn, event: Asked) -> None:
    state = t.state
    if event.id in state.asked or state.status in (Status.FINISHING, Status.FINISHED):
        return
    t.asked(event.id)
    refusal = flow.refusal(state, event.verb)
    if refusal:
        t.reply(event.id, 2, refusal)
    elif event.verb == "abort":
        t.reply(event.id, 0, "the retry is being ended")
        flow.kill(t, "abort")
    elif event.verb == "pause":
        asides.ask(t, state.visitors.get(event.session, ""))
        t.reply(event.id, 0, notices.WILL_PAUSE.format(step=state.current))
    elif event.verb == "retry":
        t.set_step(state.current, choice="retry", by=state.visitors.get(event.session, ""))
        flow.start(t, state.current, Status.RETRYING, asker=event.id)
    else:
        t.reply(event.id, 0, notices.GOES_ON[event.verb].format(step=state.current))
        flow.go(t, Going(event.verb, state.visitors.get(event.session, "")))


def _stopped(t: Turn, event: Stopped) -> None:
    state = t.state
    if state.status in (Status.FINISHING, Status.FINISHED):
        return
    t.set(last_cause=event.cause or state.last_cause)
    text = event.notice or f"The job is ended: {event.reason or event.result}."
    t.note([text])
    flow.finish(t, event.result, reason=event.reason, notice=text)


def _resumed(t: Turn, event: Resumed) -> None:
    if event.reason == HOLD_OVER and t.state.job.pause.on_failure:
        return  # its own people wait for this failure, too
    if t.state.status in (Status.PAUSED, Status.RETRYING, Status.WAITING):
        flow.go(t, Going("expired", "", event.cause), notice=event.notice)


def _stored(t: Turn, event: Stored) -> None:
    t.set(outbox=tuple(item for item in t.state.outbox if item.number > event.number))
    if t.state.removed and not t.state.outbox:
        t.set(status=Status.FINISHED)


def _replied(t: Turn, event: Replied) -> None:
    t.set(replies=tuple(reply for reply in t.state.replies if reply.id != event.id))


_RULES: dict[type, Callable[[Turn, Any], None]] = {
    SandboxMade: _made, SandboxSaid: _said, SandboxBroke: _broke, Removed: _removed, StepEnded: _step_ended,
    Exported: _exported, Tick: _tick, SessionOpened: people.opened, SessionClosed: people.closed,
    ShellStarted: people.shell_started, ShellEnded: people.shell_ended, Active: people.active, Asked: _asked,
    Stopped: _stopped, Resumed: _resumed, Stored: _stored, Replied: _replied, Used: people.used,
    PauseWanted: asides.wanted,
}  # fmt: skip
