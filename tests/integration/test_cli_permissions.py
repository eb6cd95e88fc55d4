"""Each NATS user on a real server: what it may do goes through, what it may not is refused by the server itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from pitstop_cli.local import tls
from pitstop_common.bus import connected, inbox_prefix
from pitstop_common.embedded import Account, EmbeddedServer, server_path
from pitstop_common.errors import Unavailable
from pitstop_common.nkeys import AccountKey
from pitstop_common.permissions import OWNER, PUBLISHER, SERVICES, rights
from pitstop_common.provision import provision
from pitstop_common.streams import buckets, streams
from pitstop_common.subjects import EVENTS, FACTS

USERS = (*SERVICES, OWNER, PUBLISHER)
DECIDING = ("dec.0", "spec.acme.r", "work.pool.default", "work.host.h", "timer.idle.x.1", "$KV.runs.acme.r")
FORBIDDEN = {
    "sandbox": (*DECIDING, "run.requested", "run.accepted.acme.r", "session.expired.acme.r", "sandbox.lost.acme.r",
                "$KV.keys.acme.ada", "$KV.owners.0", "api.acme.ada.run", "link.dial.other", "dlq.req.acme",
                *(f"{event}.acme.r" for event in EVENTS)),
    "relay": (*DECIDING, "run.requested", "session.expired.acme.r", "job.finished.acme.r", "ssh.connected.acme.r",
              "$KV.keys.acme.ada", "$KV.claims.x.1", "$KV.hosts.h", "logs.acme.r.j", "api.acme.ada.run"),
    "janitor": (*DECIDING, "run.requested", "job.finished.acme.r", "$KV.keys.acme.ada", "$KV.claims.x.1",
                "logs.acme.r.j"),
    "owner": (*DECIDING, "$KV.keys.acme.ada", "$KV.claims.x.1", "logs.acme.r.j", "svc.access", "link.dial.h",
              "$JS.API.STREAM.DELETE.IN", "$JS.API.STREAM.PURGE.IN", "$JS.API.CONSUMER.DELETE.WORK.pool-default",
              *(f"{fact}.acme.r" for fact in FACTS), *(f"{event}.acme.r" for event in EVENTS)),
    "publisher": (*DECIDING, "run.requested", "run.requested.other", "api.acme.ada.run", "api.acme.publisher.keys-ls",
                  "api.other.publisher.run", "$JS.API.DIRECT.GET.KV_keys.$KV.keys.acme.ada",
                  "$JS.API.STREAM.MSG.GET.KV_keys", "$JS.API.CONSUMER.CREATE.KV_keys", "$JS.API.CONSUMER.CREATE.LOGS",
                  *(f"{fact}.acme.r" for fact in FACTS)),
}  # fmt: skip
DEAF = {
    "sandbox": ("api.>", "svc.>", "run.requested", "_INBOX.>", "_INBOX_scheduler.>", "dec.*", "logs.>", "$KV.>"),
    "relay": ("link.dial.*", "api.>", "_INBOX_sandbox.>", "run.>", "$KV.>"),
    "janitor": ("api.>", "svc.>", "_INBOX_scheduler.>", "$KV.>"),
    "owner": ("svc.>", "link.>", "_INBOX_scheduler.>", "work.>", ">"),
    "publisher": ("_INBOX.>", "_INBOX_owner.>", "run.requested", "sandbox.ready", "ssh.*.other.*", ">"),
}
HEARD = {
    "owner": ("run.requested", "sandbox.ready", "ssh.connected", "session.expired", "run.rejected.acme.>", "_INBOX.x"),
    "publisher": ("run.finished.acme.*", "session.expired.acme.r", "_INBOX_publisher.x.*"),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """With every user as it is deployed, and the streams made by the scheduler's."""
    accounts = [
        Account(user=user, password="x", publish=held.publish, subscribe=held.subscribe)
        for user, held in ((user, rights(user, "acme")) for user in USERS)
    ]
    made = EmbeddedServer(tmp_path / "nats", accounts=accounts)
    await made.start()
    async with connected(made.url("scheduler"), "test") as bus:
        await provision(bus)
    yield made
    await made.stop()


NOBODYS = "subject.of.nobody"


class Probe:
    """A plain client of one user, and what the server refused it."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.client: Client

    async def __aenter__(self) -> Probe:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def heard(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self.refused.add(str(error).split('"')[1].lower())

    async def settled(self) -> set[str]:
        """The subjects refused so far, in lower case. The server answers in order: when it has refused a last one that
        nobody may publish on, it has refused all before it."""
        await self.client.publish(NOBODYS, b"")
        async with asyncio.timeout(20):
            while NOBODYS not in self.refused:
                await asyncio.sleep(0.01)
        return self.refused - {NOBODYS}


async def probe(server: EmbeddedServer, user: str) -> Probe:
    made = Probe()
    url = server.url(user)
    made.client = await nats.connect(url, error_cb=made.heard, inbox_prefix=inbox_prefix(url), allow_reconnect=False)
    return made


@pytest.mark.parametrize("user", FORBIDDEN)
async def test_the_server_refuses_what_a_user_must_not_say(server: EmbeddedServer, user: str) -> None:
    async with await probe(server, user) as it:
        for subject in FORBIDDEN[user]:
            await it.client.publish(subject, b"{}")
        assert await it.settled() == {subject.lower() for subject in FORBIDDEN[user]}
    async with connected(server.url("scheduler"), "test") as bus:
        for stream in ("DEC", "IN", "EVENTS", "WORK", "KV_keys"):
            assert (await bus.js.stream_info(stream)).state.messages == 0


@pytest.mark.parametrize("user", DEAF)
async def test_the_server_refuses_what_a_user_must_not_hear(server: EmbeddedServer, user: str) -> None:
    async with await probe(server, user) as it:
        for subject in DEAF[user]:
            await it.client.subscribe(subject)
        assert await it.settled() == {subject.lower() for subject in DEAF[user]}


@pytest.mark.parametrize("user", HEARD)
async def test_events_are_heard_by_those_they_are_for(server: EmbeddedServer, user: str) -> None:
    async with await probe(server, user) as it:
        for subject in HEARD[user]:
            await it.client.subscribe(subject)
        assert await it.settled() == set()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("owner", "run.requested"), ("owner", "run.requested.other"), ("publisher", "run.requested.acme"),
        ("sandbox", "job.finished.acme.r"), ("sandbox", "logs.acme.r.j"), ("sandbox", "$KV.claims.x.1"),
        ("relay", "ssh.denied.acme.r"), ("janitor", "session.expired.acme.r"), ("scheduler", "dec.0"),
    ],
)  # fmt: skip
async def test_what_a_user_is_for_is_stored(server: EmbeddedServer, user: str, subject: str) -> None:
    async with connected(server.url(user), "test") as bus:
        assert (await bus.store(subject, b"{}")).seq == 1


async def test_only_the_scheduler_makes_streams(server: EmbeddedServer) -> None:
    async with connected(server.url("sandbox"), "test") as bus:
        with pytest.raises(Unavailable):
            await bus.api("STREAM.CREATE.MINE", {"name": "MINE", "sources": [{"name": "KV_keys"}]}, timeout=0.3)


@pytest.mark.parametrize("user", [user for user in USERS if user not in {"scheduler", "janitor"}])
def test_nobody_reads_by_consumer_what_it_writes_itself(user: str) -> None:
    """A consumer delivers to any subject: with words of one's own in its stream, it would speak for others."""
    held = rights(user, "acme")
    consumers = {
        right.split("CONSUMER.")[1].split("CREATE.")[1].split(".")[0] for right in held.publish if ".CREATE." in right
    }
    written = {
        str(stream.name)
        for stream in [*streams(), *buckets()]
        for subject in stream.subjects or []
        for right in held.publish
        if not right.startswith("$JS") and _meet(subject, right)
    }
    assert consumers & written == set()


def _meet(one: str, other: str) -> bool:
    """Is there a subject that both patterns match."""
    left, right = one.split("."), other.split(".")
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
        if index + 1 == len(left) != len(right) or index + 1 == len(right) != len(left):
            return False
    return True


def test_the_example_of_a_server_is_taken_by_a_real_one(tmp_path: Path) -> None:
    tls.ensure(tmp_path)
    env = os.environ | {f"PITSTOP_{user.upper()}_PASSWORD": f"pw-{user}" for user in USERS}
    env |= {f"PITSTOP_NATS_{name}": str(tmp_path / file)
            for name, file in (("NAME", "n"), ("STORE", "s"), ("CERT", "relay.pem"), ("KEY", "relay.key"))}  # fmt: skip
    env["PITSTOP_CALLOUT_ISSUER"] = AccountKey.generate().public
    config = Path(__file__).parents[2] / "deploy" / "nats" / "nats.conf"
    done = subprocess.run([server_path(), "-t", "-c", config], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
