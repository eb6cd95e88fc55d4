"""Facts: what intake, hosts, relays and the janitor tell the scheduler's log (stream IN)."""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common.messages.orgs import HoldRemove, HoldSet, OrgConfigured
from pitstop_common.messages.parts import (
    Choice,
    ExpiryReason,
    JobReport,
    Message,
    PauseReason,
    Result,
    SshAddress,
    UseKind,
)
from pitstop_common.messages.pools import HostDrain, PoolAsked, PoolConfigured, PoolShared


class AcceptedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduling part of a job."""

    job: str
    key: str
    pool: str
    ssh: bool = False


class RunAccepted(Message, frozen=True, kw_only=True, tag="run.accepted"):
    """Intake found a request good. Its spec is stored already. Windows in seconds."""

    actor: str = ""
    priority: int = 0
    jobs: tuple[AcceptedJob, ...] = ()
    connect_window: float = 600
    idle_timeout: float = 900
    max_duration: float = 0
    on_expiry: Literal["cancel", "resume"] = "cancel"
    retry: Literal["", "infrastructure"] = ""
    ref: str = ""
    """The branch or tag it is of, as the request says."""
    rerun_of: str = ""
    notes: tuple[str, ...] = ()
    trace: str = ""
    source: str = ""
    """`<stream>:<sequence>` of the request: the same message again is a redelivery, another one a duplicate."""


class RunCancel(Message, frozen=True, kw_only=True, tag="run.cancel"):
    """End a run, or one job of it (`job`)."""

    by: str = ""
    reason: str = ""


class RunExtend(Message, frozen=True, kw_only=True, tag="run.extend"):
    """Keep a job's session for `seconds` from now, within the cap of its org."""

    seconds: float
    by: str = ""


class RunPause(Message, frozen=True, kw_only=True, tag="run.pause"):
    """Have a job pause when its step in progress ends; `off`: not any more. It holds if `revision` is still current,
    and the attempt."""

    revision: int
    by: str = ""
    off: bool = False


class HostFact(Message, frozen=True, kw_only=True, tag=False):
    """A fact of the host that claimed the job. The log ignores it from any other."""

    host: str
    incarnation: str
    """Of the host's process. Later ones sort after earlier ones."""
    serial: int = 0
    """Counts the facts of an attempt up: a fact that comes again, late, is told by it. 0: this one has no order."""


class JobClaimed(HostFact, frozen=True, kw_only=True, tag="job.claimed"):
    """This host runs this attempt, and no other may. `key`: its public key (X25519, base64); the attempt's secrets are
    sealed to that of the first claim, whatever later ones say."""

    key: str = ""


class SandboxReady(HostFact, frozen=True, kw_only=True, tag="sandbox.ready"):
    """The sandbox stands; steps begin. `ssh` when the job offers a session. `image`: what it is made of, with the
    digest that ran; empty where sandboxes have none."""

    backend: str = ""
    image: str = ""
    ssh: SshAddress | None = None


class SandboxFailed(HostFact, frozen=True, kw_only=True, tag="sandbox.failed"):
    """No sandbox could be made. The attempt is over. A `reason` that begins with `image_` is of the job's own: it would
    fail on any host."""

    reason: str = ""
    message: str = ""


class SandboxLost(Message, frozen=True, kw_only=True, tag="sandbox.lost"):
    """The janitor has seen nothing of a host for too long. `host` and `incarnation` name it; job may be empty: all."""

    host: str
    incarnation: str
    reason: str = "host_lost"


class SandboxRoom(Message, frozen=True, kw_only=True, tag="sandbox.room"):
    """A host says how many jobs it may hold, and what it is. 0: it takes no more. `org` and `run` are `_`. `serial`
    counts up from 1 in an incarnation."""

    host: str
    incarnation: str
    pool: str
    capacity: int
    serial: int = 0
    labels: tuple[str, ...] = ()
    drained: bool = False
    """It takes no new job because it was told so, by the `host.drain` of this serial (0: by none yet)."""
    drain_serial: int = 0


class StepStarted(HostFact, frozen=True, kw_only=True, tag="step.started"):
    """A step began (again: `attempts` > 1)."""

    step: int
    name: str
    attempts: int = 1
    by: str = ""
    """Who had it tried again."""


class StepFinished(HostFact, frozen=True, kw_only=True, tag="step.finished"):
    """A step ended."""

    step: int
    name: str
    result: Result
    exit_code: int | None = None
    report: JobReport = JobReport()


class JobPaused(HostFact, frozen=True, kw_only=True, tag="job.paused"):
    """Waiting for its person. Also sent when the connect window starts anew (everybody left without `exit`)."""

    reason: PauseReason
    step: int = 0
    name: str = ""
    exit_code: int | None = None
    ssh: SshAddress | None = None
    hold: str = ""
    """The hold that it waits for, if it has one and this is its first failure."""
    revision: int = 0
    """Of the newest `run.pause` that the host has heard of."""
    so_far: Result = "success"
    """What the job's result would be if it ended now."""
    report: JobReport = JobReport()


class JobPausing(HostFact, frozen=True, kw_only=True, tag="job.pausing"):
    """Somebody has asked for it: the job pauses when this step ends. `revision` of the newest `run.pause` that the host
    has heard of."""

    step: int
    name: str
    by: str = ""
    revision: int = 0


class JobResumed(HostFact, frozen=True, kw_only=True, tag="job.resumed"):
    """The remaining steps go on: who chose, and what."""

    choice: Choice | Literal["expired"]
    by: str = ""
    step: int = 0
    report: JobReport = JobReport()


class JobFinished(HostFact, frozen=True, kw_only=True, tag="job.finished"):
    """Nothing of the job is left on its host. `reason` is a stable code when the result is `error`."""

    result: Result
    reason: str = ""
    message: str = ""
    report: JobReport = JobReport()


class SshConnected(HostFact, frozen=True, kw_only=True, tag="ssh.connected"):
    """Somebody entered. `client` is address and port as the relay saw them. `fingerprint`: of the key, or the id of an
    access token; `via`: the certificate of the key, in words."""

    session: str
    user: str
    fingerprint: str
    client: str = ""
    via: str = ""


class SshActive(HostFact, frozen=True, kw_only=True, tag="ssh.active"):
    """Somebody was active `age` seconds before this was published."""

    age: float = 0


class SshUsed(HostFact, frozen=True, kw_only=True, tag="ssh.used"):
    """Somebody inside opens something: a shell, a command (`what`), sftp, a connection to `what` inside, a listener on
    `what`, their agent; or asks something of files over sftp. `what` is masked as the job's log is, has no control
    characters and is bounded. `count`: so often, where many came at a time; `session` is the first of theirs then. An
    empty `what` of a kind that has one: too many different ones to name, or many operations on files, in `named`."""

    session: str
    user: str
    kind: UseKind
    what: str = ""
    count: int = 1
    named: tuple[str, ...] = ()


class SshClosed(HostFact, frozen=True, kw_only=True, tag="ssh.closed"):
    """A connection ended; `left` remain. `reason`: exit, disconnect, expired, stopped."""

    session: str
    user: str
    reason: str
    left: int = 0
    duration: float = 0


class SshDenied(Message, frozen=True, kw_only=True, tag="ssh.denied"):
    """A login was refused. `reason` is a stable code; `job` what was asked for, when it exists."""

    reason: str
    fingerprint: str = ""
    client: str = ""


class SessionExpired(Message, frozen=True, kw_only=True, tag="session.expired"):
    """A deadline of a session has passed. Only the janitor may say so; it holds if `revision` is still current."""

    reason: ExpiryReason
    revision: int


class SessionWarned(Message, frozen=True, kw_only=True, tag="session.warned"):
    """A deadline of a session comes near. Only the janitor says so; it holds if `revision` is still current."""

    reason: ExpiryReason
    revision: int


Fact = (
    RunAccepted | RunCancel | RunExtend | RunPause | JobClaimed | SandboxReady | SandboxFailed | SandboxLost
    | SandboxRoom | StepStarted | StepFinished | JobPaused | JobPausing | JobResumed | JobFinished | SshConnected
    | SshActive | SshUsed | SshClosed | SshDenied | SessionExpired | SessionWarned | OrgConfigured | HoldSet
    | HoldRemove | PoolConfigured | PoolAsked | PoolShared | HostDrain
)  # fmt: skip
