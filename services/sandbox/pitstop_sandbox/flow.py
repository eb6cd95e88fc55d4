"""How a job goes from step to step, into a pause and out of it. Pure; the verbs that the rules in `decide` use."""

from __future__ import annotations

import msgspec

from pitstop_common.messages import JobFinished, JobPaused, JobPausing, JobResumed, PauseReason, Result, StepStarted
from pitstop_common.spec import StepSpec
from pitstop_sandbox import notices
from pitstop_sandbox.events import Exports, Kill, Remove, RunStep, Say, StepEnded, Verb
from pitstop_sandbox.model import Going, JobState, KillReason
from pitstop_sandbox.transitions import Status
from pitstop_sandbox.turn import Turn, address, report

PAUSING = (Status.PAUSED, Status.RETRYING, Status.WAITING)
_AFTER_A_STEP: tuple[PauseReason, ...] = ("on_failure", "after_step", "forced")


def been(state: JobState, reason: PauseReason, step: int) -> bool:
    """Has the job been paused for this reason at this step."""
    return (reason, step) in state.pauses


def runs(state: JobState, step: StepSpec) -> bool:
    """Does this step's condition hold now. After the job's time limit only `always` and `cancelled` do."""
    holds = {
        "always": True,
        "cancelled": state.timed_out,
        "failure": state.failed and not state.timed_out,
        "success": not state.failed and not state.timed_out,
    }
    return holds[step.condition]


def result_of(state: JobState, event: StepEnded) -> Result:
    """What a try of a step came to."""
    if state.killed_for in ("step", "job"):
        return "timeout"
    if event.error or event.exit_code != 0 or state.killed_for:
        return "failure"
    return "success"


def so_far(state: JobState) -> Result:
    """What the job's result would be if it ended now."""
    return "timeout" if state.timed_out else "failure" if state.failed else "success"


# -- steps ---------------------------------------------------------------------------------------------------------


def advance(t: Turn) -> None:
    """Go to the next step that is to run, or past the last."""
    while t.state.current < len(t.state.steps):
        following = t.state.current + 1
        if not runs(t.state, t.state.spec(following)):
            t.set(current=following)
            t.set_step(following, result="skip")
        elif t.state.job.pause.before_step == following and not been(t.state, "before_step", following):
            t.set(current=following)
            _pause(t, "before_step")
            return
        else:
            start(t, following, Status.STEPPING)
            return
    _after_last(t)


def start(t: Turn, step: int, status: Status, *, asker: str = "") -> None:
    """Begin a try of a step. What was exported so far is its environment."""
    _fold_exports(t)
    tries = t.state.step(step).tries + 1
    clock = {"running_since": t.now} if status is Status.STEPPING else {}
    t.set(status=status, current=step, step_since=t.now, killing="", killed_for="", kill_at=0, asker=asker, **clock)
    t.set_step(step, tries=tries, result="", exit_code=None, error="", started=t.state.step(step).started or t.now)
    t.publish(StepStarted, step=step, name=t.state.spec(step).name, attempts=tries,
              by=t.state.step(step).by if status is Status.RETRYING else "")  # fmt: skip
    t.do(RunStep(step, tries, asker))
    if status is Status.STEPPING and t.state.pausing is not None and t.state.pausing.step != step:
        say_pausing(t, t.state.pausing.by)


def _fold_exports(t: Turn) -> None:
    layer = t.state.layer
    kept = tuple(entry for entry in t.state.path if entry not in layer.path)
    t.set(env={**t.state.env, **layer.env}, path=(*kept, *dict.fromkeys(layer.path)), layer=Exports())


def stop_clock(t: Turn) -> None:
    """The job's own time stands still from here on."""
    if t.state.running_since:
        t.set(ran=t.state.ran + max(0.0, t.now - t.state.running_since), running_since=0)


def kill(t: Turn, reason: KillReason, *, force: bool = False) -> None:
    """End the step in progress: TERM, and KILL after the grace time."""
    if not t.state.in_step or (t.state.killing and not force):
        return
    t.set(killing="kill" if force else "term", killed_for=reason, kill_at=t.now + t.state.grace)
    t.do(Kill(t.state.current, t.state.step(t.state.current).tries, force))


def after_step(t: Turn) -> None:
    """The step in progress is over: pause here, or go on."""
    state = t.state
    spec, done = state.spec(state.current), state.step(state.current)
    plan = state.job.pause
    failed = done.result != "success" and (plan.any_failure or not spec.continue_on_error)
    if failed and (plan.on_failure or (plan.hold and not state.held)):
        t.set(held=bool(plan.hold))
        _pause(t, "on_failure")
    elif state.single or (state.job.pause.after_step == state.current and not been(state, "after_step", state.current)):
        _pause(t, "after_step")
    elif state.pausing is not None:
        _pause(t, "forced")
    else:
        advance(t)


def _after_last(t: Turn) -> None:
    plan, last = t.state.job.pause, len(t.state.steps)
    seen = any(been(t.state, reason, last) for reason in _AFTER_A_STEP)
    if plan.at_end and not seen:
        _pause(t, "at_end")
    elif plan.direct and (t.state.shell_open or not t.state.visitors):
        t.set(status=Status.WAITING, paused="direct")
        say_paused(t)
    else:
        finish(t, "")


# -- pauses --------------------------------------------------------------------------------------------------------


def _pause(t: Turn, reason: PauseReason) -> None:
    t.set(status=Status.PAUSED, paused=reason, pauses=(*t.state.pauses, (reason, t.state.current)), single=False)
    say_paused(t)


def say_paused(t: Turn) -> None:
    """Publish the pause; while nobody is inside, the connect window begins (anew)."""
    t.set(deadline=0 if t.state.sessions else t.now + t.state.run.session.connect_window)
    if (pausing := t.state.pausing) is not None:
        t.set(pausing=None, guests=tuple(dict.fromkeys((*t.state.guests, *pausing.users))))
    state = t.state
    name = state.spec(state.current).name if state.current else ""
    code = state.step(state.current).exit_code if state.current else None
    assert state.paused
    t.publish(JobPaused, reason=state.paused, step=state.current, name=name, exit_code=code, ssh=address(state),
              so_far=so_far(state), hold=held_by(state), revision=state.pause_revision,
              report=report(state))  # fmt: skip
    t.note(notices.pause(state))
    if state.shell_open:
        t.do(Say(f"The job is paused {notices.why(state)}; {notices.VERBS}"))


def say_pausing(t: Turn, by: str) -> None:
    """Publish that the end of the step in progress is a pause."""
    state = t.state
    assert state.pausing is not None
    t.set(pausing=msgspec.structs.replace(state.pausing, step=state.current))
    name = state.spec(state.current).name
    t.publish(JobPausing, step=state.current, name=name, by=by, revision=state.pause_revision)
    text = notices.pausing(state, by)
    t.note([text])
    if state.shell_open:
        t.do(Say(text))


def held_by(state: JobState) -> str:
    """The hold that this pause may be for: the scheduler counts the first of a job."""
    return state.job.pause.hold if state.paused == "on_failure" else ""


def go(t: Turn, going: Going, notice: str = "") -> None:
    """End the pause; while a step is being retried, as soon as that is over."""
    if t.state.status not in PAUSING:
        return
    if notice:
        t.note([notice])
    if t.state.status is not Status.RETRYING:
        resume(t, going)
        return
    t.set(going=going)
    if going.choice == "expired":
        kill(t, "expired")


def resume(t: Turn, going: Going) -> None:
    """Go on with what comes after the pause."""
    state = t.state
    t.set(deadline=0, going=None, last_cause=going.cause or state.last_cause)
    _choose(t, going)
    was = state.paused
    t.set(paused="", single=going.choice == "next")
    t.publish(JobResumed, choice=going.choice, by=going.by, step=state.current, report=report(t.state))
    text = notices.resumed(going.choice, going.by)
    t.note([text])
    if state.shell_open:
        t.do(Say(text))
    if was == "before_step" and not t.state.step(state.current).result:
        t.set(current=state.current - 1)
        advance(t)
    elif was in ("at_end", "direct"):
        finish(t, "")
    else:
        advance(t)


def _choose(t: Turn, going: Going) -> None:
    """Write down what a person made of the step at the pause. Its exit code stays what it was."""
    state = t.state
    done = state.step(state.current) if state.current else None
    if done is None or going.choice == "expired":
        return
    if going.choice in ("skip", "fail"):
        result = "skip" if going.choice == "skip" else "failure"
        t.set_step(state.current, result=result, choice=going.choice, by=going.by)
    elif state.paused in _AFTER_A_STEP:
        choice = "next" if going.choice == "next" else "continue"
        t.set_step(state.current, choice=done.choice or choice, by=done.by or going.by)


def refusal(state: JobState, verb: Verb) -> str:
    """Why a request from inside cannot be done now; empty when it can."""
    if verb == "abort":
        return "" if state.status is Status.RETRYING else "no retry is in progress"
    if verb == "pause":
        return "the job is paused already" if state.status in PAUSING else ""
    if state.status is Status.RETRYING:
        return "the step is being retried already; wait for its end, or press Ctrl-C there"
    if state.status is Status.WAITING:
        return "" if verb == "continue" else "the job's steps are over; only `continue` or `exit` is left"
    if state.status is not Status.PAUSED:
        return f"the job is not paused (it is {state.status.value})"
    return _refusal_at_pause(state, verb)


def _refusal_at_pause(state: JobState, verb: Verb) -> str:
    done = state.step(state.current) if state.current else None
    if verb == "retry" and (done is None or done.tries == 0):
        return "the step has not run yet; `continue` runs it"
    if verb == "skip" and (done is None or done.result in ("success", "skip")):
        return (
            f"step {state.current} is not to be skipped: it ended with {done.result}"
            if done
            else "no step is here to skip"
        )
    if verb == "next" and state.paused != "before_step" and state.current == len(state.steps):
        return "no step is left; `continue` ends the job"
    return ""


# -- the end -------------------------------------------------------------------------------------------------------


def finish(t: Turn, result: Result | str, *, reason: str = "", message: str = "", notice: str = "") -> None:
    """The result is known (empty: that of the steps). Everything inside is killed."""
    state = t.state
    if state.in_step and not state.step(state.current).result:
        ended = "error" if result == "error" else "timeout" if result == "timeout" else "cancellation"
        duration = round(max(0.0, t.now - state.step_since), 3)
        t.set_step(state.current, result=ended, duration=duration)
    stop_clock(t)
    if state.asker:
        t.reply(state.asker, 2, notice or "the job has ended")
    t.set(status=Status.FINISHING, result=result or so_far(state), reason=reason, message=message)
    t.set(paused="", deadline=0, asker="", going=None, killing="")
    t.do(Remove())


def say_finished(t: Turn) -> None:
    """Nothing is left: close the log, and say so."""
    state = t.state
    for number, done in enumerate(state.steps, 1):
        if not done.result:
            t.set_step(number, result="skip")
    t.end_log()
    t.publish(JobFinished, result=state.result, reason=state.reason, message=state.message, report=report(t.state))
