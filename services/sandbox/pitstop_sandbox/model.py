"""The state of a job that runs: the fold of its events. Data only, and nothing here knows a clock.

Times are seconds since the epoch, durations seconds.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pitstop_common.messages import Choice, PauseReason, Result, SshAddress
from pitstop_common.spec import JobSpec, RunSpec, StepSpec
from pitstop_sandbox.events import Exports, Outgoing, Reply
from pitstop_sandbox.transitions import Status

Killing = Literal["", "term", "kill"]
KillReason = Literal["", "step", "job", "abort", "expired"]

STARTED_AHEAD: Final = "ready-"
"""How the ids of shells begin that are started before anybody asks for one."""


class StepState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step so far."""

    result: Result | Literal[""] = ""
    exit_code: int | None = None
    tries: int = 0
    choice: Choice | Literal[""] = ""
    by: str = ""
    started: float = 0
    duration: float = 0
    error: str = ""
    outputs: dict[str, str] = {}
    tail: tuple[str, ...] = ()


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that is open, and its interactive shells."""

    user: str
    since: float
    shells: tuple[str, ...] = ()


class Going(msgspec.Struct, frozen=True):
    """How a pause is to end as soon as the retry in progress is over."""

    choice: Literal["continue", "skip", "fail", "next", "expired"]
    by: str = ""
    cause: str = ""


class Pausing(msgspec.Struct, frozen=True):
    """Who asked first for a pause while a step runs, and all who did; at the end of which step it was said to come."""

    by: str = ""
    users: tuple[str, ...] = ()
    step: int = 0


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """A job attempt. `current` is the step in progress, or the last one that was, or (paused before it) the next;
    0 before the first. `outbox` holds what is not yet known to be stored."""

    run: RunSpec
    job: JobSpec
    attempt: int
    cause: str = ""
    grace: float = 10
    cleanup: float = 300
    now: float = 0
    status: Status = Status.PREPARING

    steps: tuple[StepState, ...] = ()
    current: int = 0
    step_since: float = 0
    killing: Killing = ""
    killed_for: KillReason = ""
    kill_at: float = 0
    ran: float = 0
    running_since: float = 0
    timed_out: bool = False

    env: dict[str, str] = {}
    path: tuple[str, ...] = ()
    layer: Exports = Exports()
    """What the step in progress (or last in progress) has exported; `env` and `path` are of those before it."""
    masks: tuple[str, ...] = ()

    paused: PauseReason | Literal[""] = ""
    deadline: float = 0
    """Until when somebody must have come in; 0: somebody has, or it is not paused."""
    pauses: tuple[tuple[PauseReason, int], ...] = ()
    """Where the job has been paused already, and why."""
    single: bool = False
    """It pauses again after the next step that runs."""
    pausing: Pausing | None = None
    """It pauses when the step in progress ends, because somebody asked for it."""
    pause_revision: int = 0
    """Of the newest such wish that came from the scheduler."""
    guests: tuple[str, ...] = ()
    """Who may enter because the job has paused as they asked."""
    held: bool = False
    """It has waited, or waits, for the user of its hold."""
    sessions: dict[str, SessionState] = {}
    detached: dict[str, str] = {}
    """Interactive shells whose connection was lost: process -> user. They go on."""
    visitors: dict[str, str] = {}
    """Everybody who ever was in: session -> user; and process -> user of shells that were started before them."""
    asker: str = ""
    asked: tuple[str, ...] = ()
    going: Going | None = None
    replies: tuple[Reply, ...] = ()

    backend: str = ""
    image: str = ""
    """With its digest."""
    notes: tuple[str, ...] = ()
    shells: tuple[str, ...] = ()
    image_env: dict[str, str] = {}
    """The environment that the sandbox's image brings."""
    ssh: SshAddress | None = None

    result: Result | Literal[""] = ""
    reason: str = ""
    message: str = ""
    last_cause: str = ""
    removed: bool = False

    outbox: tuple[Outgoing, ...] = ()
    number: int = 0
    lines: int = 0

    def spec(self, step: int) -> StepSpec:
        """The step of that number, from 1."""
        return self.job.steps[step - 1]

    def step(self, step: int) -> StepState:
        """What became of that step, from 1."""
        return self.steps[step - 1]

    @property
    def failed(self) -> bool:
        """Has a step failed that counts."""
        return any(
            done.result in ("failure", "timeout", "error") and not spec.continue_on_error
            for spec, done in zip(self.job.steps, self.steps, strict=True)
        )

    @property
    def shell_open(self) -> bool:
        """Is there an interactive shell, with somebody or left behind."""
        return bool(self.detached) or any(session.shells for session in self.sessions.values())

    def has_shell(self, process: str) -> bool:
        """Is this process an interactive shell of somebody's."""
        return process in self.detached or any(process in session.shells for session in self.sessions.values())

    @property
    def offers(self) -> bool:
        """May anybody be let in: by the request, by a hold since its first failure, or since a pause they asked for."""
        return self.job.pause.any or self.held or bool(self.guests)

    @property
    def in_step(self) -> bool:
        """Is a step in progress."""
        return self.status in (Status.STEPPING, Status.RETRYING)


def begin(run: RunSpec, job: JobSpec, attempt: int, *, cause: str = "", grace: float = 10) -> JobState:
    """The state before the first event. `grace`: seconds between TERM and KILL."""
    return JobState(
        run=run, job=job, attempt=attempt, cause=cause, grace=grace, steps=tuple(StepState() for _ in job.steps)
    )
