"""Who may say and hear what on NATS: one user per service, each with the smallest set that works, as data.

A stolen host credential cannot decide (`dec.*`), ask for runs or expire sessions; a stolen relay credential can only
ask and deny. Streams are made by the scheduler's user alone (or beforehand, by `pitstop up` with that user).

Secrets are in no book that people may read: only schedulers read the bucket, and only hosts may ask `svc.secrets`.

A consumer can be told to deliver to any subject, whatever its maker may publish. So no host, relay, owner or publisher
may make consumers on a stream whose content it also writes: it could put its own words into another's mouth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from pitstop_common import streams
from pitstop_common.api import VERBS
from pitstop_common.roles import Role, at_least
from pitstop_common.subjects import (
    EVENTS,
    RUN_REQUESTED,
    USER_AUTH,
    USER_INFO,
    about,
    api,
    cast,
    dead_letter,
    dial,
    logs,
    requested_by,
    service,
    snapshot,
    spec,
    sweep,
    work,
    work_of_host,
)

SERVICES: Final = ("scheduler", "sandbox", "relay", "janitor")
OWNER: Final = "owner"
PUBLISHER: Final = "publisher"
PASS: Final = "pass"
"""People with a login of their own; each has an inbox of its own under `_INBOX_pass`."""

_UNBOUND: Final = ("token-create",)
"""Verbs that a pass bound to a role is not good for: it could make one that is not."""
_PING: Final = "$SRV.>"
_NOUNS: Final = ("run", "job", "step", "sandbox", "ssh", "session", "org", "hold")
_OPEN_BOOKS: Final = (
    streams.IN, streams.EVENTS, streams.DEC, streams.SNAP, streams.SPECS, streams.LOGS, streams.CASTS, streams.DLQ,
    streams.POISON,
    "KV_runs", "KV_keys", "KV_hosts", "KV_claims",
)  # fmt: skip
"""What the owner may read. Not WORK and TIMERS: reading there takes from the hosts and the janitor."""
_REPLIES: Final = ("_INBOX.>", "_INBOX_owner.>", "_INBOX_publisher.>", "_INBOX_pass.>")
"""Where a scheduler may answer what another scheduler was asked."""


def is_inbox(reply: str) -> bool:
    """Is this where somebody hears an answer. Whoever answers says it with rights of his own: who asks must not be
    able to choose a subject that he may not publish on himself."""
    return reply.partition(".")[0] in {"_INBOX", *(f"_INBOX_{user}" for user in (*SERVICES, OWNER, PUBLISHER, PASS))}


RESERVED: Final = (*SERVICES, OWNER, PUBLISHER, PASS)
"""Names that no person can have."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may publish and subscribe to. All may answer what they are asked."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def rights(user: str, org: str = "local") -> Rights:
    """The rights of a service, of `owner`, or of `publisher` (who is held to `org`). KeyError for others."""
    makers: dict[str, Callable[[], Rights]] = {
        "scheduler": _scheduler,
        "sandbox": _sandbox,
        "relay": _relay,
        "janitor": _janitor,
        OWNER: _owner,
        PUBLISHER: lambda: _publisher(org),
    }
    made = makers[user]()
    return Rights(publish=made.publish, subscribe=(f"_INBOX_{user}.>", *made.subscribe))


def _scheduler() -> Rights:
    names = [str(stream.name) for stream in [*streams.streams(), *streams.buckets()]]
    return Rights(
        publish=(
            *_facts("run.accepted", "run.cancel", "run.extend", "run.pause", "org.configured", "hold.set",
                    "hold.remove", "host.drain", "pool.configured", "pool.asked", "pool.shared"),
            *_facts(*EVENTS),
            "dec.*", snapshot("*", "*", "*"), spec("*", "*"), work("*"), work_of_host("*"), "timer.*.*.*",
            dead_letter("*", "*"), RUN_REQUESTED, requested_by("*"),
            "$KV.runs.>", "$KV.keys.>", "$KV.secrets.>", "$KV.owners.>",
            *(f"$JS.API.STREAM.CREATE.{name}" for name in names), *_info(),
            *(f"$JS.API.STREAM.PURGE.{name}" for name in (streams.TIMERS, streams.DEC, streams.SNAP)),
            *(f"$JS.API.STREAM.MSG.DELETE.{name}" for name in (streams.REQ, streams.REQ_ORG)),
            *_get(streams.SPECS, "KV_runs", "KV_keys", "KV_secrets", "KV_owners"),
            *_message(streams.DEC, streams.DLQ, streams.SPECS, "KV_keys"),
            *_scan(streams.IN, streams.DEC, streams.SNAP, streams.DLQ, "KV_runs", "KV_keys", "KV_secrets",
                   "KV_hosts"),
            *_consume(streams.REQ, streams.REQ_ORG),
            *_logins(), *_REPLIES,
        ),
        subscribe=(api("*", "*", "*"), service("*"), logs("*", "*", "*"), USER_AUTH, _PING),
    )  # fmt: skip


def _logins() -> tuple[str, ...]:
    """To let people in, and to read logs and the audit for them."""
    return (
        "$KV.passes.>", USER_INFO, *_get("KV_passes"), *_message("KV_passes"), *_scan("KV_passes"),
        *(f"$JS.API.DIRECT.GET.{name}" for name in (streams.LOGS, streams.IN, streams.CASTS)),
        *_scan(streams.CASTS),
    )  # fmt: skip


def _sandbox() -> Rights:
    return Rights(
        publish=(
            *_facts("job.claimed", "job.paused", "job.pausing", "job.resumed", "job.finished", "step.started",
                    "step.finished", "sandbox.ready", "sandbox.failed", "sandbox.room", "ssh.connected", "ssh.active",
                    "ssh.used", "ssh.closed", "ssh.denied"),
            logs("*", "*", "*"), cast("*", "*", "*", "*"), "$KV.claims.>", "$KV.hosts.>", service("access"),
            service("job"), service("secrets"),
            *_info(), *_get(streams.SPECS, "KV_claims", "KV_hosts"), *_consume(streams.WORK),
        ),
        subscribe=(dial("*"), sweep("*"), _PING),
    )  # fmt: skip


def _relay() -> Rights:
    return Rights(
        publish=(*_facts("ssh.denied"), service("access"), service("who"), dial("*"), *_info()), subscribe=(_PING,)
    )


def _janitor() -> Rights:
    return Rights(
        publish=(
            *_facts("session.expired", "session.warned", "sandbox.lost"),
            dead_letter("*", "*"), "$KV.hosts.>", sweep("*"),
            *_info(), *_get("KV_hosts", "KV_runs", "KV_claims"), *_scan("KV_hosts", "KV_runs", "KV_claims"),
            *(f"$JS.API.STREAM.PURGE.{name}" for name in ("KV_hosts", "KV_runs", "KV_claims")),
            f"$JS.API.CONSUMER.LIST.{streams.WORK}", f"$JS.API.CONSUMER.DELETE.{streams.WORK}.*",
            *_message(streams.REQ, streams.REQ_ORG, streams.WORK, streams.TIMERS),
            *_consume(streams.TIMERS, streams.POISON),
        ),
        subscribe=(_PING,),
    )  # fmt: skip


def _owner() -> Rights:
    """The person whose system it is: asks for runs, calls the API, hears and reads all. Writes no fact and no state."""
    return Rights(
        publish=(
            RUN_REQUESTED, requested_by("*"), api("*", "*", "*"), _PING,
            *_info(), *_get(*_OPEN_BOOKS), *_message(*_OPEN_BOOKS, streams.REQ, streams.REQ_ORG), *_scan(*_OPEN_BOOKS),
        ),
        subscribe=("_INBOX.>", *(f"{noun}.>" for noun in _NOUNS)),
    )  # fmt: skip


def _publisher(org: str) -> Rights:
    """A machine of one org: asks for its runs, and hears of them."""
    return Rights(
        publish=(requested_by(org), api(org, PUBLISHER, "run"), api(org, PUBLISHER, "status")),
        subscribe=tuple(f"{noun}.*.{org}.*" for noun in _NOUNS),
    )


def person(org: str, user: str, id: str, role: Role, *, login: bool) -> Rights:
    """A person with a pass: asks in one's own name, and hears what happens in the org. `role`: the pass is good for
    verbs that need no more. A token (not `login`) is good for a login alone. No stream can be read: a consumer, or an
    answer to a reply subject of one's choice, would speak for others."""
    if not login:
        return Rights(publish=(api(org, user, "login"),), subscribe=(f"{pass_inbox(id)}.>",))
    verbs = [verb for verb, rule in VERBS.items() if at_least(role, rule.role) and verb not in _UNBOUND]
    return Rights(
        publish=(api(org, user, "*"),) if role == "admin" else tuple(api(org, user, verb) for verb in verbs),
        subscribe=(f"{pass_inbox(id)}.>", *(f"{noun}.*.{org}.*" for noun in _NOUNS)),
    )


def pass_inbox(id: str) -> str:
    """Where the holder of a token or login hears answers."""
    return f"_INBOX_{PASS}.{id}"


def _facts(*types: str) -> Iterable[str]:
    return (about(type_, "*", "*") for type_ in types)


def _info() -> tuple[str, ...]:
    return ("$JS.API.INFO", "$JS.API.STREAM.INFO.*")


def _get(*names: str) -> Iterable[str]:
    """The newest message of a subject: what a bucket's `get` needs."""
    return (f"$JS.API.DIRECT.GET.{name}.>" for name in names)


def _message(*names: str) -> Iterable[str]:
    """Single messages by their place."""
    return (f"$JS.API.STREAM.MSG.GET.{name}" for name in names)


def _scan(*names: str) -> list[str]:
    """Read in order, with a consumer of one's own that acks nothing."""
    made = []
    for name in names:
        made += [
            f"$JS.API.CONSUMER.CREATE.{name}", f"$JS.API.CONSUMER.CREATE.{name}.>", f"$JS.FC.{name}.>",
            *(f"$JS.API.CONSUMER.{verb}.{name}.*" for verb in ("INFO", "MSG.NEXT", "DELETE")),
        ]  # fmt: skip
    return made


def _consume(*names: str) -> list[str]:
    """Take work of a durable consumer: what is acked is gone for the others."""
    made = []
    for name in names:
        made += [
            f"$JS.ACK.{name}.>",
            *(f"$JS.API.CONSUMER.{verb}.{name}.*" for verb in ("DURABLE.CREATE", "INFO", "MSG.NEXT")),
        ]
    return made
