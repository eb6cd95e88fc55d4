"""The bodies of the API: what `api.<org>.<actor>.<verb>` is asked and answers, as JSON."""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common.api_audit import AuditReply, AuditRequest
from pitstop_common.api_holds import HoldList, HoldRemoval, HoldRequest, HoldView
from pitstop_common.api_hosts import HostDrainRequest, HostList, HostView
from pitstop_common.api_orgs import OrgLimits, OrgView
from pitstop_common.api_pauses import PauseRequest, Pausing
from pitstop_common.api_pools import PoolsApply, PoolsView
from pitstop_common.api_recordings import RecordingList, RecordingReply, RecordingRequest, RecordingsRequest
from pitstop_common.api_secrets import ContextList, ContextRestrict, ContextView, SecretRemove, SecretSet, SecretsList
from pitstop_common.limits import MAX_JOBS
from pitstop_common.messages import Fault, JobReport, JobView, RerunView, RunView, UserKey, Waiting
from pitstop_common.passes import (
    KeyAdd,
    KeyLink,
    KeyList,
    KeyRemove,
    LinkView,
    LoginReply,
    LoginRequest,
    LogsReply,
    LogsRequest,
    PassList,
    TokenMade,
    TokenRequest,
    TokenRevoke,
)
from pitstop_common.requests import Name, RequestId, RunRequest, Seconds, SshRequest
from pitstop_common.roles import Role
from pitstop_common.spec import Retry


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a service error. `error` is a stable code; `errors` name the faulty fields of a request."""

    error: str
    message: str
    errors: tuple[Fault, ...] = ()


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """No fields; an empty body will do."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It is done. `already`: the result of what had ended before; `seq`: where a replayed message was stored."""

    ok: bool
    already: str = ""
    seq: int = 0


class RunReply(msgspec.Struct, frozen=True, kw_only=True):
    """The run that the request started, or had started (`duplicate`). `jobs`: id by key. Position 0: has a slot.
    `rerun_of`: the run that it does again; `notes`: what else is to be known, in words."""

    run: str
    request: str
    duplicate: bool
    queue_position: int
    jobs: dict[str, str]
    rerun_of: str = ""
    notes: tuple[str, ...] = ()


class RerunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Do a run again: `run` by its id, or one job of it by the job's id. `jobs`: only these (key, name or id);
    `failed`: only those that did not succeed. `ssh` left out: the pauses of the first run, without its users and keys;
    `{}`: none. `id`: the caller's own name of this request."""

    run: str
    id: RequestId = ""
    jobs: Annotated[list[Name], Meta(max_length=MAX_JOBS)] = []
    failed: bool = False
    ssh: SshRequest | UnsetType = UNSET
    retry: Retry | UnsetType = UNSET


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run by its id, or by the id of one of its jobs."""

    run: str


class JobStatusView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as `pitstop status` shows it. `position` and `reason` of a queued one; `limit` 0: the org has none."""

    job: JobView
    report: JobReport | None = None
    message: str = ""
    position: int = 0
    reason: str = ""
    limit: int = 0
    used: int = 0
    steps: tuple[str, ...] = ()
    allowed: tuple[dict[str, str], ...] = ()


class RunStatusView(msgspec.Struct, frozen=True, kw_only=True):
    """A run as `pitstop status` shows it. `reruns`: the runs that did it again, oldest first; `notes`: what else is to
    be known, in words."""

    run: RunView
    jobs: tuple[JobStatusView, ...]
    reruns: tuple[RerunView, ...] = ()
    notes: tuple[str, ...] = ()


class ListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`all`: ended ones too. `ssh`: only jobs that hold a slot for a person, or have one inside. `slots`: only jobs
    that hold a slot, and the queue (the others are not looked at then)."""

    all: bool = False
    ssh: bool = False
    slots: bool = False


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """Slots of the org; `limit` 0: none."""

    limit: int
    used: int
    debug: int


class ListReply(msgspec.Struct, frozen=True, kw_only=True):
    """Runs and jobs of the org. `queue`: its head, with `slots` only; `waiting`: how many wait. `now`: the server's
    clock, seconds since the epoch."""

    runs: tuple[RunView, ...]
    jobs: tuple[JobView, ...]
    slots: Slots
    now: float
    queue: tuple[Waiting, ...] = ()
    waiting: int = 0


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """End a run, or one job of it: `job` (id or key), or a job's id in `run`."""

    run: str
    job: str = ""
    reason: str = ""


class ExtendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Keep a session for `seconds` from now. `run`: a run or a job by id; `job`: which one of the run (id or key),
    where several have a session."""

    run: str
    seconds: Seconds
    job: str = ""


class Extended(msgspec.Struct, frozen=True, kw_only=True):
    """The session of `job` lasts until `until` (RFC 3339) at least. `capped`: the org allows no more, and that is
    earlier than asked for."""

    job: str
    until: str
    capped: bool


class LetterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The number that the list shows."""

    seq: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be used: where it was published, why it was refused. `bytes`: its size."""

    seq: int
    stream: str
    subject: str
    reason: str
    time: str
    bytes: int
    org: str


class LetterBody(Letter, frozen=True, kw_only=True):
    """A dead letter and its text."""

    body: str


class LetterList(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of the org, and those without a usable org; oldest first."""

    letters: tuple[Letter, ...]


class Verb(NamedTuple):
    """What a verb is asked and answers, and what it takes. An error is answered with ApiError.

    `role` is needed `on`: the project of the run that the body names in `run` ("run"), the project that the body names
    ("project"), the org ("org"), any project of it ("member"), or every org, by the deployment's word ("deployment").
    `others`: of whoever touches what is another's.
    """

    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    role: Role
    on: Literal["run", "project", "org", "member", "deployment"]
    others: Role = "none"


VERBS: Final[dict[str, Verb]] = {
    "run": Verb(RunRequest, RunReply, "write", "project"),
    "rerun": Verb(RerunRequest, RunReply, "write", "run"),
    "status": Verb(StatusRequest, RunStatusView, "read", "run"),
    "ls": Verb(ListRequest, ListReply, "read", "member"),
    "cancel": Verb(CancelRequest, Done, "write", "run", others="admin"),
    "extend": Verb(ExtendRequest, Extended, "write", "run"),
    "pause": Verb(PauseRequest, Pausing, "write", "run"),
    "hold": Verb(HoldRequest, HoldView, "write", "project"),
    "hold-ls": Verb(Nothing, HoldList, "read", "member"),
    "hold-rm": Verb(HoldRemoval, Done, "write", "project", others="admin"),
    "audit": Verb(AuditRequest, AuditReply, "read", "run"),
    "recordings": Verb(RecordingsRequest, RecordingList, "read", "run"),
    "recording": Verb(RecordingRequest, RecordingReply, "read", "run"),
    "logs": Verb(LogsRequest, LogsReply, "read", "run"),
    "login": Verb(LoginRequest, LoginReply, "none", "member"),
    "token-create": Verb(TokenRequest, TokenMade, "read", "member", others="admin"),
    "token-ls": Verb(Nothing, PassList, "none", "member"),
    "token-revoke": Verb(TokenRevoke, Done, "none", "member", others="admin"),
    "org-show": Verb(Nothing, OrgView, "read", "member"),
    "org-apply": Verb(OrgLimits, OrgView, "admin", "org"),
    "pools-apply": Verb(PoolsApply, PoolsView, "admin", "deployment"),
    "hosts-ls": Verb(Nothing, HostList, "read", "member"),
    "hosts-drain": Verb(HostDrainRequest, HostView, "admin", "deployment"),
    "keys-add": Verb(KeyAdd, UserKey, "write", "member"),
    "keys-ls": Verb(Nothing, KeyList, "read", "member"),
    "keys-rm": Verb(KeyRemove, Done, "read", "member"),
    "keys-link": Verb(KeyLink, LinkView, "write", "member"),
    "keys-unlink": Verb(KeyLink, Done, "read", "member"),
    "secrets-set": Verb(SecretSet, ContextView, "write", "member"),
    "secrets-ls": Verb(SecretsList, ContextList, "read", "member"),
    "secrets-rm": Verb(SecretRemove, Done, "write", "member"),
    "secrets-restrict": Verb(ContextRestrict, ContextView, "admin", "org"),
    "dlq-ls": Verb(Nothing, LetterList, "admin", "org"),
    "dlq-show": Verb(LetterRequest, LetterBody, "admin", "org"),
    "dlq-replay": Verb(LetterRequest, Done, "admin", "org"),
}
