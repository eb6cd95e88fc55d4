"""Deadlines on a real server: they fire, become one fact each, and survive what dies in between."""

from __future__ import annotations

import signal
import time

import pytest
from tests.janitors import eventually, janitor, total, value
from tests.patience import PATIENCE

from pitstop_common import subjects, telemetry
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.lifecycle import Runtime
from pitstop_common.messages import ExpiryReason, Fired, SessionExpired, decode_fact, encode
from pitstop_common.pull import read_all, rfc3339
from pitstop_common.streams import DLQ, IN

RUN = "abcdefghijkl"
TRACE = telemetry.new_trace()


def fired(number: int = 1, reason: ExpiryReason = "idle", revision: int = 1) -> Fired:
    return Fired(
        org="acme", run=RUN, project="web", request="r", job=f"{RUN}-{number}", attempt=1, reason=reason,
        revision=revision,
    )  # fmt: skip


async def arm(bus: Bus, deadline: Fired, seconds: float) -> float:
    """As the scheduler does. Returns when it is due (seconds since the epoch)."""
    due = time.time() + seconds
    headers = {
        "Nats-Schedule": f"@at {rfc3339(due)}",
        "Nats-Schedule-Target": subjects.fired(deadline.reason, deadline.job, deadline.attempt),
        "traceparent": TRACE,
    }
    await bus.store(subjects.timer(deadline.reason, deadline.job, deadline.attempt), encode(deadline), headers)
    return due


async def expiries(bus: Bus) -> list[SessionExpired]:
    facts = [decode_fact(item.data) for item in await read_all(bus, IN, subjects.facts_of(0))]
    return [fact for fact in facts if isinstance(fact, SessionExpired)]


async def test_a_deadline_is_heard_as_session_expired_within_half_a_second(
    bus: Bus, nats_server: EmbeddedServer
) -> None:
    heard = await bus.nc.subscribe("session.expired")
    """On a machine that has other things to do: one of ten."""
    async with janitor(nats_server) as runtime:
        late = []
        for revision in range(3, 13):
            due = await arm(bus, fired(reason="connect_window", revision=revision), 0.3)
            msg = await heard.next_msg(timeout=PATIENCE)
            late.append(time.time() - due)
            if late[-1] < 0.5:
                break
        assert min(late) < 0.5
        fact = decode_fact(msg.data)
        assert isinstance(fact, SessionExpired)
        assert (fact.reason, fact.revision, fact.job, fact.org) == ("connect_window", revision, f"{RUN}-1", "acme")
        assert msg.headers is not None
        told = telemetry.trace_of(msg.headers)
        assert told.split("-")[1] == TRACE.split("-")[1] and told != TRACE
        await eventually(
            lambda: value(runtime, "reclaimed_total", kind="session", reason="connect_window") == len(late)
        )
        assert value(runtime, "reclaimed_total", kind="session", reason="idle") == 0


async def test_two_janitors_say_each_deadline_once_and_count_it_once(bus: Bus, nats_server: EmbeddedServer) -> None:
    async with janitor(nats_server) as one, janitor(nats_server) as two:
        for number in range(1, 101):
            await arm(bus, fired(number), 0.5)
        await eventually(lambda: total(one, "reclaimed_total") + total(two, "reclaimed_total") >= 100)
        facts = await expiries(bus)
        assert sorted(fact.job for fact in facts) == sorted(f"{RUN}-{number}" for number in range(1, 101))
        assert total(one, "reclaimed_total") + total(two, "reclaimed_total") == 100


async def test_a_deadline_that_comes_again_is_no_news(bus: Bus, nats_server: EmbeddedServer) -> None:
    subject = subjects.fired("idle", f"{RUN}-1", 1)
    async with janitor(nats_server) as runtime:
        await bus.store(subject, encode(fired()))
        await eventually(lambda: handled(runtime, "ack") == 1)
        await bus.store(subject, encode(fired()))
        await eventually(lambda: handled(runtime, "ack") == 2)
        assert len(await expiries(bus)) == 1
        assert total(runtime, "reclaimed_total") == 1


async def test_deadlines_survive_a_killed_server(bus: Bus, nats_server: EmbeddedServer) -> None:
    async with janitor(nats_server) as runtime:
        due = await arm(bus, fired(1), 0.3)
        await arm(bus, fired(2), 1.5)
        await nats_server.stop(signal.SIGKILL)
        await eventually(lambda: time.time() > due)
        await nats_server.start()
        await eventually(lambda: total(runtime, "reclaimed_total") == 2)
        assert sorted(fact.job for fact in await expiries(bus)) == [f"{RUN}-1", f"{RUN}-2"]


async def test_a_deadline_that_passes_without_a_janitor_is_said_by_the_next(
    bus: Bus, nats_server: EmbeddedServer
) -> None:
    async with janitor(nats_server):
        pass
    await bus.store(subjects.fired("idle", f"{RUN}-1", 1), encode(fired()))
    async with janitor(nats_server) as runtime:
        await eventually(lambda: total(runtime, "reclaimed_total") == 1)
    assert [fact.reason for fact in await expiries(bus)] == ["idle"]


@pytest.mark.parametrize("body", [b"", b"not json", b'{"org": "a.b"}'])
async def test_a_deadline_that_is_none_is_kept_and_stops_nothing(
    bus: Bus, nats_server: EmbeddedServer, body: bytes
) -> None:
    async with janitor(nats_server) as runtime:
        await bus.store("fired.idle.x.1", body)
        await bus.store(subjects.fired("idle", f"{RUN}-1", 1), encode(fired()))
        await eventually(lambda: handled(runtime, "term") == 1 and handled(runtime, "ack") == 1)
        await eventually(lambda: value(runtime, "reclaimed_total", kind="message", reason="terminated") == 1)
    (letter,) = await read_all(bus, DLQ, None)
    assert (letter.subject, letter.data) == ("dlq.timers._", body)
    assert letter.headers["Pitstop-Reason"].startswith("not a deadline")
    assert len(await expiries(bus)) == 1


def handled(runtime: Runtime, outcome: str) -> float:
    return value(runtime, "pitstop_message_process_seconds_count", handler="expiry", outcome=outcome)
