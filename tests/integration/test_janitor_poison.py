"""Messages that a consumer gave up on are kept, once, with all that a person needs to see and replay them."""

from __future__ import annotations

from nats.js.api import ConsumerConfig, StreamConfig
from tests.janitors import eventually, janitor, total, value

from pitstop_common import telemetry
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.lifecycle import Runtime
from pitstop_common.pull import Delivery, Pull, read_all
from pitstop_common.streams import DLQ, POISON, REQ, TIMERS, WORK, expiry_consumer, pool_consumer

TRACE = telemetry.new_trace()


async def give_up_on(bus: Bus, stream: str, deliveries: int = 2) -> None:
    """Take every message of a stream so often and never ack."""
    pull = Pull(bus, stream, ConsumerConfig(durable_name="careless", ack_wait=0.1, max_deliver=deliveries))
    taken: list[Delivery] = []
    while len(taken) < deliveries:
        taken += await pull.next(0.2)
    found = 0
    while not found:  # the server says so some time after the last ack wait, to a consumer that asks
        await pull.next(0.2)
        found = len(await read_all(bus, POISON, None))
    await pull.close()


async def test_a_message_nobody_could_handle_is_kept_with_its_origin(bus: Bus, nats_server: EmbeddedServer) -> None:
    body = b'{"org": "acme", "steps": 1}'
    stored = await bus.store("run.requested", body, {"Traceparent": TRACE, "Nats-Msg-Id": "x"})
    await give_up_on(bus, REQ)
    async with janitor(nats_server) as runtime:
        await eventually(lambda: value(runtime, "reclaimed_total", kind="message", reason="max_deliveries") == 1)
    (letter,) = await read_all(bus, DLQ, None)
    assert (letter.subject, letter.data) == ("dlq.req.acme", body)
    assert letter.headers["Pitstop-Stream"] == "REQ"
    assert letter.headers["Pitstop-Seq"] == str(stored.seq)
    assert letter.headers["Pitstop-Subject"] == "run.requested"
    assert letter.headers["Pitstop-Reason"] == "careless tried it 2 times"
    assert telemetry.trace_of(letter.headers).split("-")[1] == TRACE.split("-")[1]


async def test_what_a_work_queue_has_dropped_is_at_least_told(bus: Bus, nats_server: EmbeddedServer) -> None:
    await bus.store("work.pool.default", b"?")
    pull = Pull(bus, WORK, pool_consumer("default"))
    (start,) = await pull.next(2)
    await start.term("no such job")
    async with janitor(nats_server) as runtime:
        await eventually(lambda: value(runtime, "reclaimed_total", kind="message", reason="terminated") == 1)
    await pull.close()
    (letter,) = await read_all(bus, DLQ, None)
    assert letter.subject == "dlq.work._"
    assert letter.headers["Pitstop-Reason"] == "no such job"
    assert "Pitstop-Missing" in letter.headers


async def test_a_deadline_that_a_newer_one_replaced_is_no_dead_letter(bus: Bus, nats_server: EmbeddedServer) -> None:
    """The server tells of it as of a message that was given up."""
    pull = Pull(bus, TIMERS, expiry_consumer())
    await bus.store("fired.session.abcdefghijkl-1.1", b"older")
    (older,) = await pull.next(2)
    assert older.data == b"older"
    await bus.store("fired.session.abcdefghijkl-1.1", b"newer")
    (newer,) = await pull.next(2)
    await newer.ack_surely()
    while not (advised := await read_all(bus, POISON, None)):
        await pull.next(0.1)
    assert b"Unacknowledged message was deleted" in advised[0].data
    async with janitor(nats_server) as runtime:
        await eventually(lambda: handled(runtime) == 1)
    await pull.close()
    assert await read_all(bus, DLQ, None) == []


async def test_two_advisories_about_one_message_make_one_letter(bus: Bus, nats_server: EmbeddedServer) -> None:
    await bus.store("run.requested", b"x")
    await give_up_on(bus, REQ)
    (advisory,) = await read_all(bus, POISON, None)
    await bus.store(advisory.subject, advisory.data)
    async with janitor(nats_server) as one, janitor(nats_server) as two:
        await eventually(lambda: sum(handled(each) for each in (one, two)) == 2)
        assert total(one, "reclaimed_total") + total(two, "reclaimed_total") == 1
    assert len(await read_all(bus, DLQ, None)) == 1


async def test_messages_of_other_programs_are_not_ours(bus: Bus, nats_server: EmbeddedServer) -> None:
    await bus.js.add_stream(StreamConfig(name="THEIRS", subjects=["theirs"]))
    await bus.store("theirs", b"private")
    await give_up_on(bus, "THEIRS")
    async with janitor(nats_server) as runtime:
        await eventually(lambda: handled(runtime) == 1)
        assert total(runtime, "reclaimed_total") == 0
    assert await read_all(bus, DLQ, None) == []


async def test_a_message_as_large_as_the_server_takes_is_kept_as_far_as_it_fits(
    bus: Bus, nats_server: EmbeddedServer
) -> None:
    size = bus.nc.max_payload
    await bus.store("run.requested", b"x" * size)
    await give_up_on(bus, REQ)
    async with janitor(nats_server) as runtime:
        await eventually(lambda: total(runtime, "reclaimed_total") == 1)
    (letter,) = await read_all(bus, DLQ, None)
    assert letter.headers["Pitstop-Truncated"] == str(size)
    assert 0 < len(letter.data) < size


def handled(runtime: Runtime) -> float:
    return value(runtime, "pitstop_message_process_seconds_count", handler="poison", outcome="ack")
