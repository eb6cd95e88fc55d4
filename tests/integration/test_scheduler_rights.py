"""A scheduler of several partitions with its own NATS user: it may do its whole work, and others may not do it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.test_scheduler_partitions import PARTITIONS, Host, all_ended, ask, request, spread
from tests.played_host import Scheduler, until

from pitstop_common import messages as m
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import Account, EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.permissions import rights
from pitstop_common.provision import provision
from pitstop_scheduler.verify import check_all

OTHERS = ("sandbox", "relay", "janitor", "owner", "publisher")
SAYERS = (
    ("publisher", "run.requested.acme"), ("sandbox", "sandbox.room._._"), ("relay", "ssh.denied._._"),
    ("owner", "run.requested"),
)  # fmt: skip
"""Users and what they may publish; the server acknowledges it."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    users = {name: rights(name, "acme") for name in ("scheduler", *OTHERS)}
    accounts = [
        Account(user=name, password="p", publish=held.publish, subscribe=held.subscribe) for name, held in users.items()
    ]
    made = EmbeddedServer(tmp_path / "nats", accounts=[*accounts, Account(user="root", password="r")])
    await made.start()
    yield made
    await made.stop()


async def test_its_user_may_share_partitions_and_pools(server: EmbeddedServer, tmp_path: Path) -> None:
    """It makes the streams, too."""
    pair = [Scheduler(server.url("scheduler"), tmp_path, name, partitions="16") for name in ("one", "two")]
    try:
        for one in pair:
            await one.start()
        async with connected(server.url("root"), "root") as bus:
            await until(lambda: spread(bus, 8, 8))
            host = Host(bus)
            try:
                await host.announce(2)
                for org in ("org-0", "org-1", "org-2"):
                    await bus.store_surely("run.requested", request(org, "a"), {"Nats-Msg-Id": org})
                for _ in range(3):
                    start = await host.take()
                    await host.report(m.JobClaimed, start, serial=1)
                    await host.report(m.JobFinished, start, result="success", serial=2)
                await until(lambda: all_ended(bus, 3))
                assert (await ask(bus, "org-1", "ls", all=True))["runs"][0]["result"] == "success"
                (known,) = (await ask(bus, "org-1", "hosts-ls"))["hosts"]
                assert (await ask(bus, "org-1", "hosts-drain", host=known["host"]))["drained"]
            finally:
                await host.close()
            assert [checker.wrong for checker in await check_all(bus)] == [[]] * PARTITIONS
    finally:
        statuses = [one.end() for one in pair if one.process is not None]
    assert statuses == [0, 0]


@pytest.mark.parametrize("user", OTHERS)
async def test_nobody_else_may(server: EmbeddedServer, user: str) -> None:
    """Lend places to itself, or sit in a scheduler's seat."""
    async with connected(server.url("root"), "root") as root:
        await provision(root, partitions=PARTITIONS)
        async with connected(server.url(user), "forger") as forger:
            facts = ("pool.shared._._", "pool.asked._1._", "pool.configured._._")
            for subject in (*facts, "$KV.owners.member.x", "$KV.owners.0", "dec.3"):
                with pytest.raises(Unavailable):
                    await forger.store(subject, b"{}", timeout=0.1)
        for name in ("IN", "KV_owners", "DEC"):
            assert (await root.js.stream_info(name)).state.messages == 0


async def test_an_answer_of_the_server_that_somebody_sends_into_the_log_stops_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Whoever may publish may name any subject for the acknowledgement, and the server stores it there."""
    one, two = (Scheduler(server.url("scheduler"), tmp_path, name) for name in ("one", "two"))
    await one.start()
    try:
        async with connected(server.url("root"), "root") as bus:
            host = Host(bus)
            try:
                await host.announce(4)
                for number, (user, subject) in enumerate(SAYERS):
                    async with connected(server.url(user), user) as sayer:
                        for reply in ("dec.0", "$KV.owners.0", "dec.0"):
                            await sayer.nc.publish(subject, b"{}", reply=reply)
                        await sayer.nc.flush()
                    await bus.store_surely(
                        "run.requested", request("acme", f"a{number}"), {"Nats-Msg-Id": f"a{number}"}
                    )
                    start = await host.take()
                    await host.report(m.JobClaimed, start, serial=1)
                    await host.report(m.JobFinished, start, result="success", serial=2)
                assert (await bus.js.stream_info("DEC", subjects_filter="dec.0")).state.messages > 2 * len(SAYERS)
                await until(lambda: ended(bus, len(SAYERS)))
                await two.start()
                one.end(signal.SIGKILL)
                await bus.store_surely("run.requested", request("acme", "last"), {"Nats-Msg-Id": "last"})
                assert (await host.take()).org == "acme"
            finally:
                await host.close()
            assert [checker.wrong for checker in await check_all(bus)] == [[]]
    finally:
        for process in (one, two):
            if process.process is not None:
                process.end()


async def ended(bus: Bus, count: int) -> bool:
    """Of org acme."""
    runs = (await ask(bus, "acme", "ls", all=True))["runs"]
    return bool(sum(run["status"] == "finished" for run in runs) == count)
