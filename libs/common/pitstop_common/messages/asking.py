"""Questions between services: who may enter a job (`svc.access`), whose a key is (`svc.who`), the dialling of links."""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common.messages.parts import JobStatus
from pitstop_common.roles import Services
from pitstop_common.ssh_policy import Trust

Barrier = Literal["ssh_disabled", "ssh_role", "ssh_context"]
"""Rules that keep a person out of a session, whatever keys they have: stable codes."""


class AccessRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who may enter this job? `fingerprint`: the key that signed; if it is not among the allowed, its owner is said.
    `token`: the id of the access token that came as a password."""

    job: str
    fingerprint: str = ""
    token: str = ""


class AllowedKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key and whose it is. `key` is `<type> <base64>`."""

    user: str
    key: str
    fingerprint: str


class Entrant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user whom the run names. `barrier`: the rule that keeps that user out, however it is proved who it is."""

    user: str
    barrier: Barrier | Literal[""] = ""
    barrier_text: str = ""


class KnownToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An access token. `hash`: of its secret (SHA-256, hex). `job` empty: of any job of the org. `over`: expired."""

    id: str
    org: str
    user: str
    hash: str
    job: str = ""
    over: bool = False


class AccessReply(msgspec.Struct, frozen=True, kw_only=True):
    """`found` false: no such job. `offers` false: the job offers no session. `allowed`: the keys that may enter.
    `owner`: whose key the asked fingerprint is, when it is registered in the org but not allowed here. `barrier`: the
    rule that keeps that person out, `barrier_text` in words; empty: no rule does. `services`: what the project
    gives to those inside. `people`: whom the run names. `trust`: whose certificates prove who somebody is. `token`: the
    one that was asked about, also when there is no such job; None: nobody has it. `linked`: what is wrong with sources
    of keys, in words. `recording`: terminals are recorded."""

    found: bool
    job: str = ""
    attempt: int = 0
    org: str = ""
    run: str = ""
    project: str = ""
    request: str = ""
    actor: str = ""
    status: JobStatus | Literal[""] = ""
    host: str = ""
    incarnation: str = ""
    offers: bool = False
    allowed: tuple[AllowedKey, ...] = ()
    owner: str = ""
    barrier: Barrier | Literal[""] = ""
    barrier_text: str = ""
    services: Services = Services()
    people: tuple[Entrant, ...] = ()
    trust: Trust = Trust()
    token: KnownToken | None = None
    linked: str = ""
    recording: bool = False


class WhoRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key is this (`svc.who`), and which jobs may they enter? Asked after a good signature. `certificate`: that
    of the key, whose authority has signed it; with it, the `signature` of the login, and the `client` (`host:port`)."""

    fingerprint: str
    certificate: bytes = b""
    signature: bytes = b""
    client: str = ""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A user of an org."""

    org: str
    user: str


class OpenJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a person may enter. `command` is empty while there is no sandbox; `sessions`: who is inside by now."""

    org: str
    project: str
    job: str
    key: str
    status: JobStatus
    sessions: int = 0
    command: str = ""


class WhoReply(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody: nobody has registered the key. At most MAX_OPEN_JOBS jobs, oldest first."""

    people: tuple[Person, ...] = ()
    jobs: tuple[OpenJob, ...] = ()


class SweepRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a host holds that seems to have no owner: keys `<job>.<attempt>`. The host asks the log before it ends or
    removes anything, so that a wrong request does no harm."""

    keys: tuple[str, ...]


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a host ended or removed. `ended`, `superseded`, `unknown`: by what the log says of the job.
    `no_owner`: nothing says what it was for."""

    kind: Literal["attempt", "sandbox", "folder"]
    key: str
    reason: Literal["ended", "superseded", "unknown", "no_owner"]


class SweepReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was freed for a request, and what else the host found at the same time."""

    freed: tuple[Freed, ...] = ()


class SecretsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of a job, please (`svc.secrets`): its claimant asks. Errors: 404 unknown, 409 not its claimant (yet),
    410 it has ended, 403 it may not have them, 503 not now."""

    job: str
    attempt: int
    host: str
    incarnation: str


class SecretsReply(msgspec.Struct, frozen=True, kw_only=True):
    """`sealed`: a JSON object of names and values, sealed to `key`, which came with the attempt's first claim."""

    key: str
    sealed: bytes


class DialRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Dial this relay worker's link port. `nonce` comes back in the link's hello."""

    address: str
    port: int
    worker: str
    nonce: str


class DialReply(msgspec.Struct, frozen=True, kw_only=True):
    """The host's answer: it dials now, or says why not."""

    ok: bool
    error: str = ""
