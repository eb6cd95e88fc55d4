"""Reads one `run.requested`: every faulty field is named, then the run is made. Pure: no I/O, clock or chance.

Two steps, because a run's id follows from what the request says: `read_request` checks everything and compiles the
jobs; `compile_run` only gives them their ids and cannot fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET

from pitstop_common import limits
from pitstop_common.errors import PitstopError
from pitstop_common.faults import Faults, TooManyFaults, pointer, told
from pitstop_common.ids import job_id
from pitstop_common.messages import Fault
from pitstop_common.requests import RunRequest, SshRequest
from pitstop_common.spec import JobSpec, Retry, RunSpec, SessionPolicy, Source
from pitstop_common.validation import check_struct
from pitstop_scheduler.request_body import decode_body
from pitstop_scheduler.request_rules import jobs_of, pause_jobs, policy_of, source_of

_NOT_YET: Final = ("inputs",)
_OF_THE_FIRST: Final = ("workflow", "steps", "image", "source", "env", "pool", "inputs", "secrets")
"""What a rerun has from the run that it does again, and from nowhere else."""
_STAND_IN: Final = {"org": "x", "project": "x"}
"""For a request without sound ones: its other fields are checked all the same, and then it is refused."""
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_ID: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f]{{1,{limits.MAX_ID_CHARS}}}\Z")


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What a rerun asks for. None: as in the run `of`."""

    of: str
    jobs: tuple[str, ...] = ()
    failed: bool = False
    ssh: SshRequest | None = None
    priority: int | None = None
    retry: Retry | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is good. Job ids are missing yet. `id` may be empty: the publisher gave none.

    `trace` is the W3C traceparent of the message, or empty.
    """

    id: str
    org: str
    project: str
    actor: str
    jobs: tuple[JobSpec, ...]
    source: Source = Source()
    session: SessionPolicy = SessionPolicy()
    priority: int = 0
    retry: Retry = ""
    trace: str = ""
    vouched: bool = False
    """NATS permissions vouch for the actor."""
    secrets: tuple[str, ...] = ()
    """Contexts that the request itself names; those of a job are in its spec, too."""
    notes: tuple[str, ...] = ()
    again: Again | None = None
    """A rerun: jobs, source and the like are still to be taken from the earlier run (`origin.inherit`)."""

    @property
    def contexts(self) -> dict[str, str]:
        """All contexts, each with the JSON pointer of where it is named first."""
        found: dict[str, str] = {}
        for i, name in enumerate(self.secrets):
            found.setdefault(name, pointer(("secrets", i)))
        for job in self.jobs:
            place = pointer(("rerun_of",) if self.again else ("workflow", "jobs", job.key, "environment"))
            for name in job.secrets:
                found.setdefault(name, place)
        return found

    @property
    def ssh(self) -> bool:
        """Does any job offer a session."""
        return any(job.pause.any for job in self.jobs)


class BadRequest(PitstopError):
    """The request cannot run. `org` and `request_id` are empty where the message has no usable ones."""

    code: ClassVar[str] = "bad_request"

    def __init__(self, faults: tuple[Fault, ...], org: str = "", request_id: str = "") -> None:
        super().__init__(told(faults))
        self.faults = faults
        self.org = org
        self.request_id = request_id


def read_request(data: bytes, *, headers: Mapping[str, str], org_of_subject: str | None) -> Request:
    """A request from a message. `headers` in any letter case; `org_of_subject` when NATS held the publisher to one.

    Raises BadRequest with every fault (at most MAX_FAULTS), and nothing else.
    """
    faults = Faults()
    known = {name.lower(): value for name, value in headers.items()}
    body: dict[str, Any] | None = None
    request: Request | None = None
    try:
        body = decode_body(data, faults)
        if body is not None:
            request = _read(body, known, org_of_subject, faults)
    except TooManyFaults:
        pass
    if faults or request is None:
        org = org_of_subject if org_of_subject is not None else (body or {}).get("org")
        request_id = (body or {}).get("id") or _id_of_headers(known)
        raise BadRequest(faults.found, _usable(org, limits.ORG), _usable(request_id, _ID))
    return request


def compile_run(request: Request, *, run: str, created: str, trace: str) -> RunSpec:
    """The run that a request starts. `created` RFC 3339; `trace` a W3C traceparent."""
    return RunSpec(
        run=run, org=request.org, project=request.project, request=request.id, actor=request.actor,
        jobs=tuple(msgspec.structs.replace(job, job=job_id(run, n)) for n, job in enumerate(request.jobs, start=1)),
        source=request.source, session=request.session, priority=request.priority,
        retry=request.retry, rerun_of=request.again.of if request.again else "", notes=request.notes, trace=trace,
        created=created, vouched=request.vouched,
    )  # fmt: skip


def _read(body: dict[str, Any], headers: Mapping[str, str], org_of_subject: str | None, faults: Faults) -> Request:
    sound = check_struct(body, RunRequest, faults, skip=("steps", *_NOT_YET))
    request = msgspec.convert(_STAND_IN | sound, RunRequest)
    for name in _NOT_YET:
        if body.get(name):
            faults.add((name,), f"`{name}` is not supported yet; leave it out")
    if org_of_subject is not None and "org" in sound and request.org != org_of_subject:
        faults.add(("org",), f"does not agree with the subject, which is that of {org_of_subject}")
    trace = headers.get("traceparent", "")
    made = Request(
        id=request.id or _header_id(headers, faults),
        org=request.org, project=request.project, actor=request.actor, priority=request.priority,
        retry=request.retry, jobs=(), trace=trace if _TRACEPARENT.match(trace) else "",
    )  # fmt: skip
    if "rerun_of" in body:
        return msgspec.structs.replace(made, again=_again(request, body, faults))
    if request.failed:
        faults.add(("failed",), "belongs to `rerun_of`")
    session = policy_of(request.ssh, faults)
    source = source_of(request.source, faults)
    jobs = pause_jobs(jobs_of(request, body, faults), request.ssh, faults)
    return msgspec.structs.replace(made, jobs=jobs, source=source, session=session, secrets=tuple(request.secrets))


def _again(request: RunRequest, body: dict[str, Any], faults: Faults) -> Again:
    for name in _OF_THE_FIRST:
        if name in body:
            faults.add((name,), "comes from the run that `rerun_of` names; leave it out")
    return Again(
        of="" if request.rerun_of is UNSET else request.rerun_of, jobs=tuple(request.jobs), failed=request.failed,
        ssh=request.ssh if "ssh" in body else None, priority=request.priority if "priority" in body else None,
        retry=request.retry if "retry" in body else None,
    )  # fmt: skip


def _header_id(headers: Mapping[str, str], faults: Faults) -> str:
    given = _id_of_headers(headers)
    if given and not _usable(given, _ID):
        faults.add(("id",), f"the id in the headers must be one line of at most {limits.MAX_ID_CHARS} characters")
    return given


def _id_of_headers(headers: Mapping[str, str]) -> str:
    """`Nats-Msg-Id`, else the id of a CloudEvent, which is unique only together with its source."""
    if headers.get("nats-msg-id"):
        return headers["nats-msg-id"]
    return "#".join(filter(None, (headers.get("ce-source"), headers["ce-id"]))) if headers.get("ce-id") else ""


def _usable(value: Any, pattern: re.Pattern[str]) -> str:
    return value if isinstance(value, str) and pattern.match(value) else ""
