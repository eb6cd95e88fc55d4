"""Requests while a stream is full: they wait, and none is given up."""

from __future__ import annotations

from pathlib import Path

from tests.played_host import Scheduler, ask, request, until

from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import read_all
from pitstop_common.streams import DLQ, IN, INTAKE, REQ
from pitstop_scheduler.intake import wait_before_next


async def limit(bus: Bus, max_bytes: int) -> None:
    """What IN may hold."""
    info = await bus.js.stream_info(IN)
    await bus.js.update_stream(info.config.evolve(max_bytes=max_bytes))


async def test_a_request_waits_while_the_log_takes_no_facts(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    one = Scheduler(nats_server.url(), tmp_path, "one")
    await one.start()
    try:
        await limit(bus, 1)
        await bus.store("run.requested", request("patient"))
        await until(lambda: redelivered(bus))
        await limit(bus, 1 << 30)
        (run,) = await until(lambda: runs(bus))
        assert run["request"] == "patient"
        assert await read_all(bus, DLQ, None) == []
    finally:
        assert one.end() == 0


async def redelivered(bus: Bus) -> bool:
    return bool((await bus.js.consumer_info(REQ, INTAKE)).num_redelivered)


async def runs(bus: Bus) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await ask(bus, "ls"))["runs"]
    return found


def test_the_waits_are_short_for_as_long_as_outages_are() -> None:
    assert wait_before_next(1) < 0.5
    assert sum(wait_before_next(n) for n in range(1, 30)) > 100
    assert max(wait_before_next(n) for n in range(1, 30)) <= 5
    assert wait_before_next(1000) == 30
