"""Streams, buckets and durable consumers, as data, and the one function that makes them exist."""

from __future__ import annotations

import re
from typing import Any, Final

from nats.js.api import (
    ConsumerConfig,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    SubjectTransform,
)

from pitstop_common.subjects import EVENTS as EVENT_TYPES
from pitstop_common.subjects import FACTS as FACT_TYPES
from pitstop_common.subjects import RUN_REQUESTED

_DAY: Final = 24 * 3600.0
_MIB: Final = 1024 * 1024
_ACK_WAIT: Final = 2.0
"""Intake and claims take milliseconds: what a killed process had in hand is soon in another's. Having one twice is
harmless."""
_MOST_DELIVERIES: Final = 1000
"""Hours of a full disk, or of a message that kills whoever takes it."""

REQ: Final = "REQ"
REQ_ORG: Final = "REQ_ORG"
IN: Final = "IN"
EVENTS: Final = "EVENTS"
DEC: Final = "DEC"
SNAP: Final = "SNAP"
SPECS: Final = "SPECS"
WORK: Final = "WORK"
TIMERS: Final = "TIMERS"
LOGS: Final = "LOGS"
CASTS: Final = "CASTS"
DLQ: Final = "DLQ"
POISON: Final = "POISON"
CONSUMED: Final = (REQ, REQ_ORG, WORK, TIMERS)
"""Streams with durable consumers: those that can give up on a message."""

BUCKETS: Final = ("runs", "claims", "keys", "hosts", "secrets", "passes", "owners")
"""runs: read models. claims: who runs an attempt. keys: public keys of users. hosts: heartbeats.
secrets: contexts, their values encrypted. passes: tokens and logins of people.
owners: the liveness key of each partition. The last two use times to live."""

FACTS_DAYS: Final = 7
"""So long is known what happened in a run, step by step: its audit."""
SPECS_DAYS: Final = 14
"""So long can a run be looked at in full, and done again."""
INTAKE: Final = "intake"
EXPIRY: Final = "janitor"
DEAD_LETTERS: Final = "dead-letters"


def streams(partitions: int = 1, replicas: int = 1) -> list[StreamConfig]:
    """Every stream. `partitions` is a constant of the deployment: changing it means a new IN and a drain."""

    def stream(name: str, subjects: list[str], **options: Any) -> StreamConfig:
        base: dict[str, Any] = {"storage": StorageType.FILE, "num_replicas": replicas, "allow_direct": True,
                "duplicate_window": 600.0}  # fmt: skip
        return StreamConfig(name=name, subjects=subjects, **{**base, **options})

    return [
        stream(REQ, [RUN_REQUESTED], max_age=7 * _DAY, max_bytes=1024 * _MIB, discard=DiscardPolicy.NEW),
        stream(REQ_ORG, [f"{RUN_REQUESTED}.*"], max_age=7 * _DAY, max_bytes=1024 * _MIB,
               discard=DiscardPolicy.NEW, republish=RePublish(src=f"{RUN_REQUESTED}.*", dest=RUN_REQUESTED)),
        stream(IN, [f"{type_}.*.*" for type_ in FACT_TYPES], max_age=FACTS_DAYS * _DAY, max_bytes=4096 * _MIB,
               discard=DiscardPolicy.NEW,
               subject_transform=SubjectTransform(
                   src="*.*.*.*",
                   dest=f"in.{{{{partition({partitions},3)}}}}."
                        "{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}"),
               republish=RePublish(src="in.*.*.*.*.*", dest="{{wildcard(2)}}.{{wildcard(3)}}")),
        stream(EVENTS, [f"{type_}.*.*" for type_ in EVENT_TYPES], max_age=7 * _DAY, max_bytes=2048 * _MIB,
               republish=RePublish(src="*.*.*.*", dest="{{wildcard(1)}}.{{wildcard(2)}}")),
        stream(DEC, ["dec.*"]),
        stream(SNAP, ["snap.*.*.*"], max_msgs_per_subject=1),
        stream(SPECS, ["spec.*.*"], max_age=SPECS_DAYS * _DAY, max_bytes=4096 * _MIB, max_msgs_per_subject=1),
        stream(WORK, ["work.>"], retention=RetentionPolicy.WORK_QUEUE, max_age=7 * _DAY),
        stream(TIMERS, ["timer.>", "fired.>"], max_msgs_per_subject=1, allow_msg_schedules=True,
               allow_msg_ttl=True, max_age=14 * _DAY),
        stream(LOGS, ["logs.*.*.*"], max_age=7 * _DAY, max_bytes=8192 * _MIB, discard=DiscardPolicy.OLD),
        stream(CASTS, ["cast.*.*.*.*"], max_age=FACTS_DAYS * _DAY, max_bytes=2048 * _MIB, discard=DiscardPolicy.OLD),
        stream(DLQ, ["dlq.*.*"], max_age=30 * _DAY, max_bytes=512 * _MIB, discard=DiscardPolicy.OLD),
        stream(POISON, ["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
                        "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"], max_age=30 * _DAY),
    ]  # fmt: skip


def partitions_of(config: StreamConfig) -> int:
    """Over how many partitions a stream IN that is there spreads the orgs. ValueError: it is none of ours."""
    transform = config.subject_transform
    found = re.search(r"partition\((\d+),", str(transform.dest)) if transform else None
    if found is None:
        raise ValueError(f"stream {config.name} has no partitions")
    return int(found[1])


def buckets(replicas: int = 1) -> list[StreamConfig]:
    """Every key-value bucket, as the stream it is. `discard new` and direct get, as KV clients expect."""
    return [
        StreamConfig(
            name=f"KV_{name}", subjects=[f"$KV.{name}.>"], storage=StorageType.FILE, num_replicas=replicas,
            max_msgs_per_subject=1, discard=DiscardPolicy.NEW, allow_rollup_hdrs=True, deny_delete=True,
            allow_direct=True, allow_msg_ttl=name in {"owners", "passes"}, duplicate_window=120.0,
        )
        for name in BUCKETS
    ]  # fmt: skip


def intake_consumer() -> ConsumerConfig:
    """Durable on REQ and on REQ_ORG: shared by all schedulers."""
    return ConsumerConfig(durable_name=INTAKE, ack_wait=_ACK_WAIT, max_ack_pending=2000,
                          max_deliver=_MOST_DELIVERIES)  # fmt: skip


def pool_consumer(pool: str) -> ConsumerConfig:
    """Durable on WORK: starts for a pool, shared by its hosts."""
    return ConsumerConfig(
        durable_name=f"pool-{pool}", filter_subject=f"work.pool.{pool}", ack_wait=_ACK_WAIT, max_ack_pending=10_000,
    )  # fmt: skip


def host_consumer(host: str) -> ConsumerConfig:
    """Durable on WORK: commands for one host."""
    return ConsumerConfig(
        durable_name=f"host-{host}", filter_subject=f"work.host.{host}", ack_wait=10.0, max_ack_pending=1000,
    )  # fmt: skip


def expiry_consumer() -> ConsumerConfig:
    """Durable on TIMERS: deadlines that are due, shared by all janitors. The ack wait is how late a deadline is when
    the janitor that has it is killed; having one twice is harmless."""
    return ConsumerConfig(durable_name=EXPIRY, filter_subject="fired.>", ack_wait=2.0, max_ack_pending=10_000)


def poison_consumer() -> ConsumerConfig:
    """Durable on POISON: messages that a consumer gave up on, shared by all janitors."""
    return ConsumerConfig(durable_name=DEAD_LETTERS, ack_wait=10.0, max_ack_pending=1000)
