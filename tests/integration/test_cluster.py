"""Three servers: what one of them does not have is asked of the leader, and readers leave one that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.chaos.cluster import NODES, Cluster
from tests.played_host import until

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.errors import Unavailable
from pitstop_common.provision import provision
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import IN


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def bus(cluster: Cluster) -> AsyncIterator[Bus]:
    async with connected(cluster.url(), "test") as connection:
        await provision(connection, replicas=NODES, patience=60)
        yield connection


async def leader(bus: Bus, stream: str) -> int:
    info = await bus.api(f"STREAM.INFO.{stream}", {})
    return int(info["cluster"]["leader"][1:])


async def surely(bus: Bus, key: str, value: bytes) -> None:
    """An election may be under way."""
    while True:
        with contextlib.suppress(Unavailable):
            await Bucket(bus, "keys").put(key, value)
            return
        await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
async def test_a_cluster_behaves_as_one_server_to_those_who_ask(cluster: Cluster, bus: Bus) -> None:
    """A server that is cut off from the others does not say that there is nothing, and no reader hangs on it."""
    streams = [f"KV_{name}" for name in ("keys", "owners")]
    for name in (*streams, IN):
        assert (await bus.js.stream_info(name)).config.num_replicas == NODES
    far = ((await leader(bus, "KV_keys")) + 1) % NODES
    near = next(number for number in range(NODES) if number != far)
    async with (
        connected(cluster.nodes[far].url(), "far") as cut_off,
        connected(cluster.nodes[near].url(), "near") as other,
    ):
        pull = Pull(other, IN, reader(subjects.facts_of(0)))
        await other.store_surely("run.cancel.acme.r0", b"{}", {"Nats-Msg-Id": "0"})
        assert await until(lambda: pull.next(0.5))
        cluster.isolate(far, [], silently=True)
        await surely(other, "acme.ada", b"[]")
        await until(lambda: does_not_know(cut_off), 60)
        with pytest.raises(Unavailable):
            await Bucket(cut_off, "keys").get("acme.ada", surely=True)
        entry = await Bucket(other, "keys").get("acme.ada", surely=True)
        assert entry is not None and entry.value == b"[]"

        await other.store_surely("run.cancel.acme.r1", b"{}", {"Nats-Msg-Id": "1"})
        (found,) = await until(lambda: pull.next(0.5), 60)
        assert found.subject.endswith(".r1")
        await pull.close()
        cluster.rejoin(far, [])
        await until(lambda: has(cut_off), 60)


async def does_not_know(bus: Bus) -> bool:
    """The server answers by itself; it asks one of the others as often, in vain."""
    with contextlib.suppress(Unavailable):
        return await Bucket(bus, "keys").get("acme.ada") is None
    return False


async def has(bus: Bus) -> bool:
    with contextlib.suppress(Unavailable):
        return await Bucket(bus, "keys").get("acme.ada", surely=True) is not None
    return False
