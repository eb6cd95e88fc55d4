"""The janitor's own NATS user can do all of the janitor's work, and nothing of the others'."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from nats.aio.msg import Msg
from tests.janitors import eventually, janitor, value

from pitstop_common import subjects
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import Account, EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.messages import Claim, Fired, Freed, Heartbeat, JobView, SweepReply, encode
from pitstop_common.permissions import rights
from pitstop_common.provision import provision
from pitstop_common.pull import read_all
from pitstop_common.streams import DLQ, WORK, host_consumer

RUN = "abcdefghijkl"
JOB = f"{RUN}-1"
OVER = f"{RUN}-2"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """With the janitor's user as it is deployed, and one that may do anything."""
    held = rights("janitor")
    accounts = [
        Account(user="janitor", password="j", publish=held.publish, subscribe=held.subscribe),
        Account(user="root", password="r"),
    ]
    server = EmbeddedServer(tmp_path / "nats", accounts=accounts)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def root(server: EmbeddedServer) -> AsyncIterator[Bus]:
    async with connected(server.url("root"), "root") as bus:
        await provision(bus)
        yield bus


async def test_it_may_do_its_whole_work(root: Bus, server: EmbeddedServer) -> None:
    deadline = Fired(
        org="acme", run=RUN, project="p", request="r", job=JOB, attempt=1, reason="idle", revision=1
    )  # fmt: skip
    view = JobView(job=JOB, run=RUN, org="acme", project="p", key="k", pool="default", status="starting", attempt=1)
    beat = Heartbeat(host="silent", incarnation="i1", pool="default", capacity=1, beat=1)
    await root.store(subjects.fired("idle", JOB, 1), encode(deadline))
    await root.store("fired.idle.x.1", b"junk")
    await Bucket(root, "hosts").put("silent", encode(beat))
    await Bucket(root, "runs").put(f"acme.{RUN}.{JOB}", encode(view))
    await Bucket(root, "claims").put(f"{JOB}.1", encode(Claim(host="gone", incarnation="i1")))
    settings = {"scan_interval": 0.1, "jobs_interval": 0.1, "host_lost_after": 0.3, "inventory_interval": 0.1,
                "inventory_grace": 0.2, "stale_interval": 0.1, "heartbeats_kept": 0.5, "consumers_kept": 0.5,
                "claims_kept": 0.5, "views_kept": 0.5}  # fmt: skip
    over = JobView(job=OVER, run=RUN, org="acme", project="p", key="k", pool="default", status="finished", attempt=1)
    await Bucket(root, "runs").put(f"acme.{RUN}.{OVER}", encode(over))
    await Bucket(root, "claims").put(f"{OVER}.1", encode(Claim(host="gone", incarnation="i1")))
    await root.js.add_consumer(WORK, host_consumer("gone"))
    held = Heartbeat(host="busy", incarnation="i1", pool="default", capacity=1, beat=1, jobs=((OVER, 1),))
    asked: list[bytes] = []

    async def sweep(msg: Msg) -> None:
        asked.append(msg.data)
        freed = Freed(kind="attempt", key=f"{OVER}.1", reason="ended")
        await root.publish(msg.reply, encode(SweepReply(freed=(freed,))))

    await root.subscribe(subjects.sweep("busy"), sweep)

    async def beats() -> None:
        for number in itertools.count(2):
            await Bucket(root, "hosts").put("busy", encode(msgspec.structs.replace(held, beat=number)))
            await asyncio.sleep(0.05)

    beating = asyncio.ensure_future(beats())
    async with janitor(server, user="janitor", **settings) as runtime:
        for kind, reason in (("session", "idle"), ("host", "silent"), ("job", "no_host"), ("message", "terminated"),
                             ("attempt", "ended"), ("claim", "stale"), ("view", "stale"), ("heartbeat", "stale"),
                             ("consumer", "stale")):  # fmt: skip
            await eventually(lambda k=kind, r=reason: value(runtime, "reclaimed_total", kind=k, reason=r) >= 1)  # type: ignore[misc]
        await eventually(lambda: value(runtime, "orphans", kind="host") == 0)
        for collector in ("expiry", "lost_hosts", "starts", "poison", "inventory", "stale_keys"):
            assert value(runtime, "sweep_errors_total", collector=collector) == 0
    beating.cancel()
    assert set(await Bucket(root, "hosts").scan()) == {"busy"}
    assert set(await Bucket(root, "claims").scan()) == {f"{JOB}.1"}, "the job of this one is not over"
    assert msgspec.json.decode(asked[0]) == {"keys": [f"{OVER}.1"]}
    assert [letter.data for letter in await read_all(root, DLQ, None)] == [b"junk"]


@pytest.mark.parametrize(
    "subject", ["run.requested", "dec.0", "work.pool.default", "job.finished.acme.r", "run.accepted.acme.r",
                "$KV.runs.acme.r", "$KV.claims.x.1", "work.host.h", "$KV.keys.acme.ada", "timer.idle.x.1"],
)  # fmt: skip
async def test_it_may_not_speak_for_others(root: Bus, server: EmbeddedServer, subject: str) -> None:
    async with connected(server.url("janitor"), "janitor") as bus:
        with pytest.raises(Unavailable):
            await bus.store(subject, b"{}", timeout=0.3)
    assert root.nc.is_connected
