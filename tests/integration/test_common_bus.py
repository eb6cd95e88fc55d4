"""The NATS adapter on a real server: acknowledged publishes, standing pulls, buckets, bare names, restarts."""

from __future__ import annotations

import asyncio
import signal

import pytest
from nats.aio.msg import Msg
from tests.patience import PATIENCE

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import ConfigError, Unavailable, WrongLastSequence
from pitstop_common.provision import check_server, provision
from pitstop_common.pull import Pull, read_all, reader
from pitstop_common.streams import IN, REQ, pool_consumer
from pitstop_common.wire import Letter, hear


async def test_a_fact_is_stored_under_its_partition_and_heard_on_its_bare_name(bus: Bus) -> None:
    heard = await bus.nc.subscribe("sandbox.ready")
    await bus.nc.flush()
    first = await bus.store("sandbox.ready.acme.r1", b"{}", {"Nats-Msg-Id": "a"})
    again = await bus.store("sandbox.ready.acme.r1", b"{}", {"Nats-Msg-Id": "a"})
    assert (first.duplicate, again.duplicate, first.seq) == (False, True, again.seq)
    assert (await heard.next_msg(timeout=PATIENCE)).data == b"{}"
    (stored,) = await read_all(bus, IN, subjects.facts_of(0))
    assert subjects.parse_fact(stored.subject) == ("sandbox.ready", "acme", "r1")


async def test_the_echo_of_an_org_request_lands_in_the_intake_with_its_origin(bus: Bus) -> None:
    await bus.store("run.requested.acme", b"{}")
    await bus.store("run.requested", b"[]")
    echo, plain = await read_all(bus, REQ, None)
    assert (echo.headers["Nats-Stream"], plain.headers.get("Nats-Stream")) == ("REQ_ORG", None)


async def test_two_writers_at_one_head_cannot_both_win(bus: Bus) -> None:
    head = {"Nats-Expected-Last-Subject-Sequence": "0"}
    await bus.store("dec.0", b"one", head)
    with pytest.raises(WrongLastSequence):
        await bus.store("dec.0", b"two", head)


async def test_a_bucket_creates_swaps_deletes_and_scans(bus: Bus) -> None:
    keys = Bucket(bus, "keys")
    assert await keys.get("acme.ada") is None
    revision = await keys.create("acme.ada", b"1")
    with pytest.raises(WrongLastSequence):
        await keys.create("acme.ada", b"2")
    await keys.swap("acme.ada", b"2", revision)
    with pytest.raises(WrongLastSequence):
        await keys.swap("acme.ada", b"3", revision)
    await keys.put("acme.bob", b"b")
    await keys.put("other.eve", b"e")
    assert {key: entry.value for key, entry in (await keys.scan("acme.>")).items()} == {
        "acme.ada": b"2",
        "acme.bob": b"b",
    }
    await keys.delete("acme.ada")
    gone = await keys.get("acme.ada")
    assert gone is not None and gone.value is None
    await keys.create("acme.ada", b"4")
    assert set(await keys.scan("acme.>")) == {"acme.ada", "acme.bob"}


async def test_everything_survives_a_killed_server(nats_server: EmbeddedServer) -> None:
    async with connected(nats_server.url(), "test") as bus:
        await provision(bus)
        pull = Pull(bus, IN, reader(subjects.facts_of(0)))
        seen: list[bytes] = []

        async def read() -> None:
            while len(seen) < 60:
                seen.extend(item.data for item in await pull.next(0.2))

        reading = asyncio.create_task(read())
        for number in range(60):
            if number in {20, 40}:
                await nats_server.stop(signal.SIGKILL)
                await nats_server.start()
            await bus.store_surely("job.claimed.acme.r", str(number).encode(), {"Nats-Msg-Id": f"n{number}"})
        await asyncio.wait_for(reading, 20)
        await pull.close()
        assert seen == [str(number).encode() for number in range(60)]


async def test_unacknowledged_work_comes_again(bus: Bus) -> None:
    await bus.store("work.pool.default", b"start")
    pull = Pull(bus, "WORK", pool_consumer("default"))
    (first,) = await pull.next(2)
    await first.nak()
    (second,) = await pull.next(2)
    assert (first.deliveries, second.deliveries) == (1, 2)
    await second.ack_surely()
    await pull.close()
    assert await read_all(bus, "KV_keys", None) == []
    assert (await bus.api("STREAM.INFO.WORK", {}))["state"]["messages"] == 0


async def test_provisioning_is_idempotent_and_refuses_old_servers(bus: Bus) -> None:
    await provision(bus)
    with pytest.raises(ConfigError, match="needs 2"):
        check_server("2.9.10")


async def test_a_header_cannot_smuggle_in_another_line(bus: Bus) -> None:
    for value in ("a\r\nNats-Rollup: all", "a\nb", "a\rb"):
        with pytest.raises(ValueError, match="line break"):
            await bus.store("sandbox.ready.acme.r1", b"{}", {"Nats-Msg-Id": value})
    with pytest.raises(Unavailable):
        await bus.store("sandbox.ready.acme.r1 x\r\nPUB run.requested 0", b"{}")
    assert not await read_all(bus, IN, None)


async def test_a_message_that_breaks_its_handler_does_not_end_the_connection(bus: Bus) -> None:
    heard = []

    def handle(msg: Letter) -> None:
        heard.append(msg.data)
        raise RuntimeError("no use")

    await hear(bus.nc, "some.subject", handle)
    for data in (b"one", b"two"):
        await bus.nc.publish("some.subject", data)
    await bus.store("sandbox.ready.acme.r1", b"{}", {"Nats-Msg-Id": "a"})
    assert heard == [b"one", b"two"]


async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_said(bus: Bus) -> None:
    await bus.subscribe("deaf", _say_nothing)
    with pytest.raises(Unavailable, match="nobody answers on deaf"):
        await bus.request("deaf", timeout=0.05)
    with pytest.raises(Unavailable, match="nobody answers on nowhere"):
        await bus.request("nowhere", timeout=5)
    assert not bus._waiting


async def _say_nothing(_: Msg) -> None:
    return None


async def test_closing_is_instant_when_the_server_is_gone(nats_server: EmbeddedServer) -> None:
    bus = await Bus.connect(nats_server.url(), "test")
    await nats_server.stop(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while bus.nc.is_connected:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        await bus.drain(30)
    assert bus.nc.is_closed


async def test_a_pull_that_is_cancelled_in_the_moment_of_an_answer_ends(bus: Bus) -> None:
    """At each of the moments between the answer's arrival and what is done with it."""
    for moment in range(12):
        pull = Pull(bus, "WORK", pool_consumer("default"))
        before = bus.nc.stats["in_msgs"]
        task = asyncio.ensure_future(pull.next(timeout=600))
        while bus.nc.stats["in_msgs"] == before:
            await asyncio.sleep(0)
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), f"cancelled at moment {moment}, it went on"
        await pull.close()
