"""A connection that is cut while messages are on their way: readers miss none, and go on at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
from tests.chaos.proxy import Proxy
from tests.patience import PATIENCE

from pitstop_common import subjects
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import IN, REQ, intake_consumer


@pytest.fixture
async def proxy(nats_server: EmbeddedServer, bus: Bus) -> AsyncIterator[Proxy]:
    """Before a server with all streams; what passes it can be lost."""
    between = Proxy(nats_server.port)
    await between.start()
    yield between
    await between.close()


async def lose(proxy: Proxy, bus: Bus, subject: str, numbers: range) -> None:
    """Store messages that the server sends to the other side of the proxy, where they never arrive."""
    proxy.hold()
    for number in numbers:
        await bus.store(subject, str(number).encode())
    consumer = await bus.js.consumers_info(IN if subject.startswith("step") else REQ)
    deadline = time.monotonic() + PATIENCE
    while (await bus.js.consumer_info(consumer[0].stream_name, consumer[0].name)).num_pending:
        assert time.monotonic() < deadline, "the server did not send them"
    proxy.cut()
    proxy.release()


async def read(pull: Pull, count: int) -> list[int]:
    """So many messages, or AssertionError after a long wait."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += [int(item.data) for item in await pull.next(0.25)]
    return found


@pytest.mark.parametrize("later", [0, 20])
async def test_a_reader_misses_nothing_that_was_lost_with_its_connection(bus: Bus, proxy: Proxy, later: int) -> None:
    """Also when nothing comes after what was lost: its consumer had counted it as delivered."""
    subject = "step.started.acme.abcdefghijkl"
    async with connected(f"nats://127.0.0.1:{proxy.port}", "cut") as cut:
        pull = Pull(cut, IN, reader(subjects.facts_of(0)))
        await bus.store(subject, b"0")
        assert await read(pull, 1) == [0]
        await lose(proxy, bus, subject, range(1, 40))
        for number in range(40, 40 + later):
            await bus.store(subject, str(number).encode())
        assert await read(pull, 39 + later) == list(range(1, 40 + later))
        await pull.close()


async def test_a_standing_pull_asks_again_as_soon_as_the_server_is_back(
    nats_server: EmbeddedServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when the silence has lasted long enough."""
    monkeypatch.setattr("pitstop_common.pull._SILENCE", 10 * PATIENCE)
    pull = Pull(bus, REQ, intake_consumer())
    await bus.store("run.requested", b"0")
    assert await read(pull, 1) == [0]
    await nats_server.stop(signal.SIGKILL)
    await nats_server.start()
    while not bus.nc.stats["reconnects"]:
        await pull.next(0.05)
    await bus.store("run.requested", b"1")
    while 1 not in await read(pull, 1):
        """The first may come again: its ack is not sent here."""
    await pull.close()
