"""Who did what in a run: the facts about it, as IN keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api_audit import AuditEntry, AuditReply, AuditRequest
from pitstop_common.batch import Stored, read_batch
from pitstop_common.bus import Bus
from pitstop_common.ids import run_of_job
from pitstop_common.messages import decode_fact
from pitstop_common.streams import IN
from pitstop_scheduler.calls import Caller, checked

_MOST: Final = 256
_MOST_BYTES: Final = 512 * 1024
"""Of what is read for one answer, which is smaller."""


class Audit:
    """The verb `audit`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self, caller: Caller, asked: MicroRequest) -> AuditReply:
        """What is stored behind `after`. Raises Unavailable."""
        wanted = checked(asked, AuditRequest)
        run, after = run_of_job(wanted.run), wanted.after
        batch = await read_batch(self._bus, IN, subjects.facts_about(caller.org, run), after=after, most=_MOST,
                                 most_bytes=_MOST_BYTES)  # fmt: skip
        entries = []
        for stored in batch.messages:
            after = stored.seq
            found = entry(stored)
            if found is not None and (wanted.run == run or found.job in {"", wanted.run}):
                entries.append(found)
        return AuditReply(entries=tuple(entries), after=after, pending=batch.pending)


def entry(stored: Stored) -> AuditEntry | None:
    """A stored fact as an entry; None: it is none of somebody's doings, or of another version."""
    with contextlib.suppress(msgspec.MsgspecError):
        fact = decode_fact(stored.data)
        fields = _FIELDS[type(fact)](fact) if type(fact) in _FIELDS else None
        if fields is not None:
            return AuditEntry(
                seq=stored.seq, type=str(fact.__struct_config__.tag), time=fact.time, stored=stored.time,
                job=fact.job, attempt=fact.attempt, **fields,
            )  # fmt: skip
    return None


_FIELDS: Final[dict[type[m.Message], Callable[[Any], dict[str, Any] | None]]] = {
    m.RunAccepted: lambda fact: {"user": fact.actor},
    m.RunCancel: lambda fact: {"user": fact.by, "reason": fact.reason},
    m.RunExtend: lambda fact: {"user": fact.by, "seconds": fact.seconds},
    m.RunPause: lambda fact: {"user": fact.by, "what": "off" if fact.off else ""},
    m.JobPausing: lambda fact: {"user": fact.by, "step": fact.step},
    m.StepStarted: lambda fact: {"user": fact.by, "step": fact.step, "what": "retry"} if fact.by else None,
    m.JobResumed: lambda fact: {"user": fact.by, "step": fact.step, "what": fact.choice},
    m.JobFinished: lambda fact: {"what": fact.result, "reason": fact.reason},
    m.SessionExpired: lambda fact: {"reason": fact.reason},
    m.SshConnected: lambda fact: {
        "user": fact.user, "session": fact.session, "client": fact.client, "fingerprint": fact.fingerprint,
        "what": fact.via,
    },
    m.SshUsed: lambda fact: {
        "user": fact.user, "session": fact.session, "kind": fact.kind, "what": fact.what, "count": fact.count,
        "named": fact.named,
    },
    m.SshClosed: lambda fact: {
        "user": fact.user, "session": fact.session, "reason": fact.reason, "seconds": fact.duration,
    },
    m.SshDenied: lambda fact: {"reason": fact.reason, "client": fact.client, "fingerprint": fact.fingerprint},
}  # fmt: skip
