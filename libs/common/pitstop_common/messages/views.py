"""Read models (bucket `runs`: keys <org>.<run>, <org>.<run>.<job>, <org>.<run>.<job>.report,
<org>.<run>.reruns.<other run>) and what lies in the
other buckets."""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common.messages.parts import ExpiryReason, JobReport, JobStatus, Result


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as the log has it. `seq` is the decision it was written after; older writes are refused."""

    run: str
    org: str
    project: str
    request: str
    actor: str
    status: Literal["queued", "running", "finished"]
    result: Result | Literal[""]
    jobs: tuple[str, ...]
    priority: int = 0
    created: float = 0
    started: float = 0
    finished: float = 0
    rerun_of: str = ""
    """The run that this one does again."""
    trace: str = ""
    seq: int = 0


class RerunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run was done again by `run`, which `actor` asked for. `created`: seconds since the epoch."""

    run: str
    actor: str
    created: float


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as the log has it. Times are seconds since the epoch by the server's clock; 0 = not yet.
    `deadline` is when the session ends by itself, and `deadline_reason` why."""

    job: str
    run: str
    org: str
    project: str
    key: str
    pool: str
    status: JobStatus
    attempt: int
    result: Result | Literal[""] = ""
    reason: str = ""
    host: str = ""
    incarnation: str = ""
    use: Literal["", "run", "debug"] = ""
    """What its slot is used for; empty: it holds none."""
    slot_since: float = 0
    sessions: int = 0
    entered: bool = False
    active: float = 0
    paused_at: float = 0
    deadline: float = 0
    deadline_reason: ExpiryReason | Literal[""] = ""
    revision: int = 0
    """Of the deadline: a fired deadline of an older revision means nothing."""
    queued: float = 0
    finished: float = 0
    hold: str = ""
    held_for: str = ""
    """The hold that it was paused for, and whom it waits for."""
    pausing: bool = False
    pausing_by: str = ""
    pausing_step: int = 0
    """It pauses when its step in progress ends: who asked for that, and which step (0: the host has not said yet)."""
    guests: tuple[str, ...] = ()
    """Who may enter since the pause that they asked for."""
    earlier: tuple[str, ...] = ()
    """Why earlier attempts were lost, oldest first."""
    seq: int = 0


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest report of a job's host."""

    job: str
    attempt: int
    report: JobReport
    message: str = ""
    seq: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A host's sign of life, every 5 s, and its inventory."""

    host: str
    incarnation: str
    pool: str
    capacity: int
    """Jobs at once, when it takes some."""
    beat: int
    """Counts up; an observer needs no clock of the host."""
    jobs: tuple[tuple[str, int], ...] = ()
    """Job and attempt of all that this process of the host has in hand."""
    leftovers: tuple[tuple[Literal["sandbox", "folder"], str], ...] = ()
    """What lies or lives there besides: kind and key, as the host's own last look found it."""
    draining: bool = False
    """It takes no new job now."""
    labels: tuple[str, ...] = ()
    backend: str = ""
    version: str = ""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs an attempt: bucket `claims`, key `<job>.<attempt>`, create-only. `token` is of one try to claim: a
    host whose write went unanswered knows by it that this claim is the one it wrote. `cause` is the grant it follows
    from: only a claim that follows from a later one may take its place."""

    host: str
    incarnation: str
    token: str = ""
    cause: str = ""


class UserKey(msgspec.Struct, frozen=True, kw_only=True):
    """A registered public key: bucket `keys`, key `<org>.<user>`, a list of these. `until`: forgotten then (seconds
    since the epoch); 0: never."""

    key: str
    fingerprint: str
    comment: str = ""
    added: str = ""
    until: float = 0


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a job in the queue of its org, from 1, and why it waits. `queued`: seconds since the epoch."""

    job: str
    run: str
    project: str
    key: str
    actor: str
    priority: int
    queued: float
    position: int
    reason: str
