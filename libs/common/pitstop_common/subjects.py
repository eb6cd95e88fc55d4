"""Every NATS subject of Pitstop: builders and parsers. No subject is spelled anywhere else.

A message about a run is `<noun>.<verb>.<org>.<run>`, and is also heard on its bare `<noun>.<verb>` (by republish of
the stream that stored it). Where there is no org or run, `_` stands in its place.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

RUN_REQUESTED: Final = "run.requested"
NOBODY: Final = "_"

FACTS: Final = (
    "run.accepted", "run.cancel", "run.extend", "run.pause",
    "job.claimed", "job.paused", "job.pausing", "job.resumed", "job.finished",
    "step.started", "step.finished",
    "sandbox.ready", "sandbox.failed", "sandbox.lost", "sandbox.room",
    "ssh.connected", "ssh.active", "ssh.used", "ssh.closed", "ssh.denied",
    "session.expired", "session.warned",
    "org.configured", "hold.set", "hold.remove", "host.drain",
    "pool.configured", "pool.asked", "pool.shared",
)  # fmt: skip
"""What the scheduler's log takes in. Written by intake, hosts, relays and the janitor."""

EVENTS: Final = (
    "run.queued", "run.started", "run.finished", "run.rejected", "run.duplicate", "job.retried",
    "session.expiring", "session.extended",
)  # fmt: skip
"""What the scheduler says. Written by the owner of the log only."""


class Address(NamedTuple):
    """The parts of a message's subject."""

    type: str
    org: str
    run: str


def about(type_: str, org: str, run: str) -> str:
    """`sandbox.ready`, `acme`, `k3…` -> `sandbox.ready.acme.k3…`."""
    return f"{type_}.{org or NOBODY}.{run or NOBODY}"


def parse_fact(subject: str) -> Address:
    """The address in a subject as IN stores it: `in.<partition>.<noun>.<verb>.<org>.<run>`."""
    parts = subject.split(".")
    if len(parts) != 6 or parts[0] != "in":
        raise ValueError(f"not a stored fact: {subject}")
    return Address(f"{parts[2]}.{parts[3]}", NOBODY if parts[4].startswith(NOBODY) else parts[4], parts[5])


_FNV_OFFSET: Final = 2166136261
_FNV_PRIME: Final = 16777619


def partition_of(token: str, partitions: int) -> int:
    """Where the server puts a token: `partition(n, …)` of a subject transform is FNV-1a of 32 bits, modulo n."""
    value = _FNV_OFFSET
    for byte in token.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value % partitions


@lru_cache
def nobodies(partitions: int) -> tuple[str, ...]:
    """A token for each partition to stand in the place of an org, so that what is about no org reaches that partition:
    `_` when there is one; `_`, `_1`, `_2`, … as the hash has it otherwise. No org begins with `_`."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        token = f"{NOBODY}{number or ''}"
        found.setdefault(partition_of(token, partitions), token)
        number += 1
    return tuple(found[partition] for partition in range(partitions))


def requested_by(org: str) -> str:
    """The intake of a publisher whom NATS permissions hold to one org."""
    return f"{RUN_REQUESTED}.{org}"


def decisions(partition: int) -> str:
    """The decision log of a partition."""
    return f"dec.{partition}"


MANIFEST: Final = "manifest"


def snapshot(partition: int | str, head: int | str, part: int | str) -> str:
    """A chunk (from 0 on) or the manifest of the fold of a partition's log up to record `head`."""
    return f"snap.{partition}.{head}.{part}"


def facts_of(partition: int) -> str:
    """All stored facts of a partition."""
    return f"in.{partition}.>"


def facts_about(org: str, run: str) -> str:
    """All stored facts about a run."""
    return f"in.*.*.*.{org}.{run}"


def spec(org: str, run: str) -> str:
    """Where the compiled run lies."""
    return f"spec.{org}.{run}"


def work(pool: str) -> str:
    """Starts for the hosts of a pool."""
    return f"work.pool.{pool}"


def work_of_host(host: str) -> str:
    """Commands for one host: stop, resume."""
    return f"work.host.{host}"


def timer(kind: str, job: str, attempt: int) -> str:
    """A deadline, armed as a message schedule."""
    return f"timer.{kind}.{job}.{attempt}"


def fired(kind: str, job: str, attempt: int) -> str:
    """Where a deadline's message appears when it is due."""
    return f"fired.{kind}.{job}.{attempt}"


def rerun(org: str, run: str, again: str) -> str:
    """Where it is kept (bucket `runs`) that a run was done again."""
    return f"$KV.runs.{org}.{run}.reruns.{again}"


def logs(org: str, run: str, job: str) -> str:
    """The output of a job's steps. `job` may be `*`."""
    return f"logs.{org}.{run}.{job}"


def cast(org: str, run: str, job: str, recording: str) -> str:
    """A recorded terminal. Run, job and recording may be `*`."""
    return f"cast.{org}.{run}.{job}.{recording}"


def dead_letter(source: str, org: str) -> str:
    """A message that could not be used, kept for `pitstop dlq`."""
    return f"dlq.{source.lower()}.{org or NOBODY}"


def api(org: str, actor: str, verb: str) -> str:
    """A request of a person or system. NATS permissions hold them to their own two tokens."""
    return f"api.{org}.{actor}.{verb}"


USER_AUTH: Final = "$SYS.REQ.USER.AUTH"
"""The server asks whether to let somebody in, and as what."""
USER_INFO: Final = "$SYS.REQ.USER.INFO"
"""Tells a user of the server who it is."""


def service(verb: str) -> str:
    """A request between services; people's credentials do not reach it."""
    return f"svc.{verb}"


def dial(host: str) -> str:
    """Asks a sandbox host to open a link to a relay worker."""
    return f"link.dial.{host}"


def sweep(host: str) -> str:
    """Asks a sandbox host to end and remove what has no owner."""
    return f"host.sweep.{host}"
