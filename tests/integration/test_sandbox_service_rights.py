"""A sandbox host as it is deployed: with its own NATS user, and with a certificate for links."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.sandbox_hosts import ORG, RUN, Scheduler, Stage, eventually, host

from pitstop_cli.local import tls
from pitstop_common import subjects
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import Account, EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.messages import DialReply, DialRequest, JobFinished, StepStarted, Stop, encode
from pitstop_common.permissions import rights
from pitstop_common.provision import provision


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """With the host's user as it is deployed, and one that may do anything."""
    held = rights("sandbox")
    accounts = [
        Account(user="sandbox", password="s", publish=held.publish, subscribe=held.subscribe),
        Account(user="root", password="r"),
    ]
    made = EmbeddedServer(tmp_path / "nats", accounts=accounts)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def root(server: EmbeddedServer) -> AsyncIterator[Bus]:
    async with connected(server.url("root"), "root") as bus:
        await provision(bus)
        yield bus


async def test_its_own_user_may_do_its_whole_work(root: Bus, server: EmbeddedServer, tmp_path: Path) -> None:
    scheduler, stage = Scheduler(root), Stage()
    url = server.url("sandbox")
    async with scheduler.answering():
        async with host(url, tmp_path / "a", stage, host_id="host-a", jobs_at_stop="leave"):
            start = await scheduler.start("echo one\nwait go\necho two")
            await scheduler.until(StepStarted)
            await scheduler.again(start)
        async with host(url, tmp_path / "a", stage, host_id="host-a"):
            stage.open("go")
            assert (await scheduler.until(JobFinished)).result == "success"
            assert await scheduler.output() == ["one", "two"]
            await scheduler.start("wait for-ever", number=2)
            job = f"{RUN}-2"
            await scheduler.until(StepStarted, job)
            await scheduler.tell("host-a", Stop(org=ORG, run=RUN, job=job, attempt=1, result="cancellation"))
            assert (await scheduler.until(JobFinished, job)).result == "cancellation"

            async def drained() -> bool:
                return await scheduler.waiting() == 0

            await eventually(drained, "the ack of all work")


@pytest.mark.parametrize(
    "subject",
    ["dec.0", "run.requested", "session.expired.acme.r1", "run.accepted.acme.r1", "work.pool.default", "$KV.runs.x"],
)
async def test_its_user_may_not_do_the_work_of_others(root: Bus, server: EmbeddedServer, subject: str) -> None:
    async with connected(server.url("sandbox"), "forger") as forger:
        with pytest.raises(Unavailable):
            await forger.store(subject, b"{}", timeout=0.2)
    assert root.nc.is_connected


async def ask(bus: Bus, body: bytes) -> DialReply:
    msg = await bus.request(subjects.dial("host-a"), body, timeout=10)
    return msgspec.json.decode(msg.data, type=DialReply)


def nobody_listens() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_a_host_answers_each_request_to_dial(root: Bus, server: EmbeddedServer, tmp_path: Path) -> None:
    request = encode(DialRequest(address="127.0.0.1", port=nobody_listens(), worker="w", nonce="n"))
    async with host(server.url("sandbox"), tmp_path / "a", Stage(), host_id="host-a"):
        reply = await ask(root, request)
        assert (reply.ok, "PITSTOP_TLS_CA" in reply.error) == (False, True)
    tls.ensure(tmp_path / "tls")
    files = {f"tls_{name}": str(tmp_path / "tls" / file) for name, file in
             {"ca": "ca.pem", "cert": "host.pem", "key": "host.key"}.items()}  # fmt: skip
    async with host(server.url("sandbox"), tmp_path / "a", Stage(), host_id="host-a", **files) as here:
        reply = await ask(root, request)
        assert (reply.ok, "cannot reach the relay" in reply.error) == (False, True)
        reply = await ask(root, b"not JSON")
        assert (reply.ok, "not a dial request" in reply.error) == (False, True)
        assert here.value("pitstop_message_process_seconds_count", handler="dial", outcome="error") == 1
