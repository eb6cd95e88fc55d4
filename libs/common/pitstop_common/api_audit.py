"""The bodies of the API verb `audit`: who did what in a run."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AuditRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run by its id, or one job of it by the job's. `after`: the number that the answer before ended with."""

    run: str
    after: Annotated[int, Meta(ge=0)] = 0


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody did, or that was done to them. `type`: the fact's: run.accepted, run.cancel, run.extend,
    run.pause (`what`: off), job.pausing, step.started (tried again by `user`), job.resumed, job.finished,
    session.expired, ssh.connected, ssh.used, ssh.closed, ssh.denied. `time`: by the clock of whoever says so; `stored`:
    by the server's; both RFC 3339. `client`: address and port. `kind`: of a use: shell, exec, sftp, file, dial,
    listen, agent. `what`: the certificate of who entered,
    the command or place of a use, the choice at a pause, a result. `count`: so often;
    `named`: of many operations on files, those that had room. `seconds`: of an
    extension or a connection."""

    seq: int
    type: str
    time: str
    stored: str
    job: str = ""
    attempt: int = 0
    user: str = ""
    session: str = ""
    client: str = ""
    fingerprint: str = ""
    kind: str = ""
    what: str = ""
    count: int = 1
    named: tuple[str, ...] = ()
    reason: str = ""
    step: int = 0
    seconds: float = 0


class AuditReply(msgspec.Struct, frozen=True, kw_only=True):
    """In the order in which it was stored; of the last FACTS_DAYS days. `after`: for the next request; `pending`: so
    many facts are behind it, not all of which are entries."""

    entries: tuple[AuditEntry, ...]
    after: int
    pending: int
