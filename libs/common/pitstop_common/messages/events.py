"""Events: what the owner of the log says (stream EVENTS)."""

from __future__ import annotations

import msgspec

from pitstop_common.messages.parts import ExpiryReason, Message, Result


class RunQueued(Message, frozen=True, kw_only=True, tag="run.queued"):
    """The run is in the queue. `jobs`: the key of each job and its id; `position` of the first job, from 1. `rerun_of`:
    the run that it does again; `notes`: what else is to be known, in words."""

    actor: str = ""
    jobs: dict[str, str] = {}
    position: int = 1
    rerun_of: str = ""
    notes: tuple[str, ...] = ()


class RunStarted(Message, frozen=True, kw_only=True, tag="run.started"):
    """The first job of the run has a slot. `waited` in seconds."""

    waited: float = 0


class JobRetried(Message, frozen=True, kw_only=True, tag="job.retried"):
    """`attempt` of the job was lost for `reason` (a stable code); the job waits in its old place to be tried again."""

    reason: str


class RunFinished(Message, frozen=True, kw_only=True, tag="run.finished"):
    """All jobs have ended. `jobs`: result by key."""

    result: Result
    reason: str = ""
    jobs: dict[str, Result] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a request. `pointer` is an RFC 6901 JSON pointer; `line`, `column` are of the workflow."""

    pointer: str
    message: str
    line: int = 0
    column: int = 0


class RunRejected(Message, frozen=True, kw_only=True, tag="run.rejected"):
    """The request cannot run; nothing was started. It is kept in the dead-letter stream under `dead_letter`."""

    errors: tuple[Fault, ...]
    code: str = "invalid"
    """invalid, ssh_no_key, ssh_disabled, ssh_role, secrets_refused."""
    dead_letter: int = 0


class RunDuplicate(Message, frozen=True, kw_only=True, tag="run.duplicate"):
    """The same request was published again; `run` is the run it started before."""


class SessionExpiring(Message, frozen=True, kw_only=True, tag="session.expiring"):
    """A session will end in `left` seconds unless somebody acts."""

    reason: ExpiryReason
    left: float


class SessionExtended(Message, frozen=True, kw_only=True, tag="session.extended"):
    """A session may last until `until`."""

    until: str
    by: str = ""


Event = (
    RunQueued | RunStarted | JobRetried | RunFinished | RunRejected | RunDuplicate | SessionExpiring | SessionExtended
)
