"""How collectors put a fact into the log."""

from __future__ import annotations

from pitstop_common import subjects, telemetry
from pitstop_common.bus import Bus
from pitstop_common.messages import Message, encode


async def say(bus: Bus, fact: Message, trace: str = "") -> bool:
    """Store a fact. True: it was news; false: it had been said before (by another janitor, or before a crash). Waits
    as long as NATS is away. Raises Refused when the stream takes no more."""
    subject = subjects.about(str(fact.__struct_config__.tag), fact.org, fact.run)
    headers = telemetry.headers(fact.id, trace or telemetry.new_trace())
    return not (await bus.store_surely(subject, encode(fact), headers)).duplicate


async def say_to_all(bus: Bus, fact: Message, partitions: int) -> bool:
    """A fact about a whole host, for every partition of the log: each has jobs there. True: it was news to any."""
    trace, news = telemetry.new_trace(), False
    for token in subjects.nobodies(partitions):
        subject = subjects.about(str(fact.__struct_config__.tag), token, fact.run)
        id = fact.id if partitions == 1 else f"{fact.id}.{token}"
        ack = await bus.store_surely(subject, encode(fact), telemetry.headers(id, trace))
        news = news or not ack.duplicate
    return news
