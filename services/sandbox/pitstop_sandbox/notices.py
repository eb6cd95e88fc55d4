"""Pitstop's own words to people: in the log, and at the entry of a shell. Pure text."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from pitstop_common.limits import MAX_DURATION
from pitstop_sandbox.model import JobState
from pitstop_sandbox.transitions import Status

_WHY = {
    "after_step": "after step {step}, as asked",
    "before_step": "before step {step}, as asked",
    "on_failure": "because step {step} failed",
    "at_end": "at the end of the job, as asked",
    "forced": "after step {step}, as {who} asked while it ran",
    "direct": "after the last step; the job ends when its shells end",
}
VERBS = "`exit` resumes the job; `pitstop-step retry | continue | skip | fail | next | env | status | help`"
GOES_ON = {
    "continue": "the job goes on",
    "skip": "step {step} counts as skipped; the job goes on",
    "fail": "step {step} counts as failed; the steps after it go by their `if`",
    "next": "the job goes on, and pauses after its next step",
}
"""What who asked for it reads."""


def rfc3339(at: float) -> str:
    """A time of day for messages."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: float) -> str:
    """A time of day for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


WILL_PAUSE = "the job pauses when step {step} ends"


def pausing(state: JobState, by: str) -> str:
    """The line of the log when somebody asks for a pause."""
    name = state.spec(state.current).name
    return f"{by or 'Somebody inside'} asked for a pause: the job waits when step {state.current} ({name}) ends"


def not_pausing(by: str) -> str:
    """The line of the log when they do not want it any more."""
    return f"No pause after this step: {by or 'somebody'} took it back"


def fingerprint(key: str) -> str:
    """`SHA256:…` of a public key line; empty when it is none."""
    parts = key.split()
    try:
        blob = base64.b64decode(parts[1] if len(parts) > 1 else "", validate=True)
    except (binascii.Error, ValueError):
        return ""
    if not blob:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def header(state: JobState) -> list[str]:
    """The first lines of a job's log."""
    lines = [f"Job {state.job.name or state.job.key} ({state.job.job}) of {state.run.org}/{state.run.project}"]
    if state.image:
        lines.append(f"Image: {state.image}")
    lines.append(f"Sandbox: {state.backend}" + "".join(f"; {note}" for note in state.notes))
    if state.ssh is not None and state.job.pause.any:
        lines.append(f"Enter with: {state.ssh.command}")
    return lines


def let_in(state: JobState) -> list[str]:
    """Who may enter, with key fingerprints where the request gave keys: those of the request, if it offers a session,
    the one for whom a hold paused the job, and those who asked for a
    pause."""
    plan, session = state.job.pause, state.run.session
    asked = (state.run.actor, *session.users) if plan.any else ()
    held = (plan.hold_user,) if state.held else ()
    users = list(dict.fromkeys(filter(None, (*asked, *held, *state.guests))))
    keys = [found for key in session.keys if plan.any and (found := fingerprint(key))]
    lines = [f"Let in: {', '.join(users)}"] if users else []
    return lines + [f"Let in by key: {key}" for key in keys]


def why(state: JobState) -> str:
    """Why the job is paused, in a few words."""
    who = ", ".join(state.guests) or "somebody inside"
    return _WHY.get(state.paused, "").format(step=state.current, who=who)


def pause(state: JobState) -> list[str]:
    """The lines of the log at a pause."""
    hold = f", for hold {state.job.pause.hold}" if state.held and state.paused == "on_failure" else ""
    lines = [f"Paused {why(state)}{hold}. It holds a slot of {state.run.org}."]
    if state.ssh is not None:
        lines.append(f"Enter with: {state.ssh.command}")
    lines += let_in(state)
    if state.deadline:
        action = "goes on" if state.run.session.on_expiry == "resume" else "is cancelled"
        lines.append(f"If nobody enters until {clock(state.deadline)} the job {action}.")
    return lines


def resumed(choice: str, by: str) -> str:
    """The line of the log at the end of a pause."""
    return f"Resumed: {choice}" + (f", by {by}" if by else "")


def shells_left(state: JobState) -> str:
    """The line of the log when the last person leaves, and shells that were left behind go on."""
    users = ", ".join(dict.fromkeys(state.detached.values()))
    return f"The job stays paused: {users} left a shell open; it waits for its person (`pitstop ssh`), or `continue`"


def entry(state: JobState) -> str:
    """What an interactive shell shows first."""
    lines = [
        f"Pitstop job {state.job.job} ({state.job.name or state.job.key}), "
        f"run {state.run.run} of {state.run.org}/{state.run.project}",
        _where(state),
    ]
    lines += _tail(state)
    lines += [f"note: {note}" for note in state.notes]
    lines.append(_how(state))
    return "\n".join(lines) + "\n"


def _where(state: JobState) -> str:
    if state.current == 0:
        return "The first step has not begun."
    spec, done = state.spec(state.current), state.step(state.current)
    label = f"step {state.current} of {len(state.steps)} ({spec.name})"
    if state.status is Status.STEPPING:
        return f"{label} is in progress; this shell has its folder and environment, and does not stop the job"
    ended = f", exit code {done.exit_code}" if done.exit_code is not None else ""
    return f"Paused {why(state)}: {label}{ended}{': ' + done.error if done.error else ''}"


def _tail(state: JobState) -> Sequence[str]:
    if state.current == 0 or state.paused != "on_failure":
        return ()
    return [f"  | {line}" for line in state.step(state.current).tail]


def _how(state: JobState) -> str:
    limits = state.run.session
    until = f"it holds a slot of {state.run.org}"
    until += f", {_minutes(limits.max_duration or MAX_DURATION)} from the first login at most, "
    until += f"and ends when nobody is at work for {_minutes(limits.idle_timeout)}"
    if state.status in (Status.PAUSED, Status.RETRYING, Status.WAITING):
        return f"{VERBS}\n{until}"
    return until


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min"


def status(state: JobState, now: float) -> str:
    """What `pitstop-step status` prints: the table of steps, why it is paused, who is in, until when."""
    lines = [f"job {state.job.job}: {state.status.value}" + (f" {why(state)}" if state.paused else "")]
    for index, (spec, done) in enumerate(zip(state.job.steps, state.steps, strict=True), 1):
        mark = ">" if index == state.current else " "
        code = "" if done.exit_code is None else f"exit {done.exit_code}"
        word = done.result or ("running" if state.in_step and index == state.current else "-")
        tries = f"{done.tries} tries" if done.tries > 1 else ""
        lines.append(f"{mark} {index:>3}  {word:<12} {code:<9} {tries:<8} {spec.name}".rstrip())
    for session in state.sessions.values():
        lines.append(f"in: {session.user}, for {_minutes(max(0.0, round(now - session.since)))}")
    if state.pausing is not None:
        lines.append(WILL_PAUSE.format(step=state.pausing.step or state.current + 1))
    if state.deadline:
        lines.append(f"waits for somebody until {clock(state.deadline)}")
    lines.append(f"ends when nobody is at work for {_minutes(state.run.session.idle_timeout)}")
    return "\n".join(lines)
