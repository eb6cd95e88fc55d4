"""People who log in to a real server with the users and rights as they are deployed, and a real scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from tests.played_host import Scheduler, until

from pitstop_cli.commands.token import callout_key
from pitstop_common import subjects
from pitstop_common.bus import Bus, connected, inbox_prefix
from pitstop_common.embedded import Account, EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.permissions import OWNER, PUBLISHER, SERVICES, rights
from pitstop_common.provision import provision
from pitstop_scheduler.passes import digest

ROOT = "root"
NOBODYS = "subject.of.nobody"


class Deployed:
    """The server, its scheduler, and its owner's connection, as whom `root` is an admin of every org."""

    def __init__(self, server: EmbeddedServer, scheduler: Scheduler, bus: Bus) -> None:
        self.server, self.scheduler, self.bus = server, scheduler, bus

    async def ask(self, verb: str, *, actor: str = ROOT, of: str = "acme", by: Bus | None = None, **body: Any) -> Any:
        """The answer of the API; of an error also its `code`."""
        reply = await (by or self.bus).request(subjects.api(of, actor, verb), json.dumps(body).encode(), timeout=6)
        return json.loads(reply.data) | {"code": (reply.headers or {}).get("Nats-Service-Error-Code")}

    async def token(self, user: str, of: str = "acme", **more: Any) -> str:
        """A new one."""
        made = await self.ask("token-create", of=of, user=user, **more)
        assert made["code"] is None, made
        return str(made["token"])

    async def exchange(self, token: str, secret: str) -> Any:
        """What the holder of a token does once."""
        org, user, id, own = token.split(".")
        async with connected(self.url(id, own), "token", attempts=1) as bus:
            return await self.ask("login", actor=user, of=org, by=bus, token=token, hash=digest(secret))

    async def login(self, user: str, of: str = "acme", **more: Any) -> str:
        """The URL that a person has after `pitstop login`."""
        secret = secrets.token_urlsafe(16)
        made = await self.exchange(await self.token(user, of, **more), secret)
        assert made["code"] is None, made
        return self.url(made["id"], secret)

    def url(self, user: str, password: str) -> str:
        """With a credential."""
        return f"nats://{user}:{password}@127.0.0.1:{self.server.port}"

    async def refused(self, url: str) -> bool:
        """Does the server let nobody in with this."""
        try:
            async with connected(url, "probe", attempts=1):
                return False
        except Unavailable:
            return True


@contextlib.asynccontextmanager
async def deployed(folder: Path, **settings: str) -> AsyncIterator[Deployed]:
    """For the length of a block."""
    accounts = [
        Account(user=user, password="x", publish=held.publish, subscribe=held.subscribe)
        for user, held in ((user, rights(user, "acme")) for user in (*SERVICES, OWNER, PUBLISHER))
    ]
    key = folder / "callout.key"
    server = EmbeddedServer(folder / "nats", accounts=accounts, callout=callout_key(key))
    await server.start()
    settings = {"admins": f"*/{ROOT}", "callout_key": str(key), **settings}
    scheduler = Scheduler(server.url("scheduler"), folder, "one", **settings)
    try:
        async with connected(server.url("scheduler"), "test") as bus:
            await provision(bus)
        await scheduler.start()
        async with connected(server.url(OWNER), "owner") as bus:
            made = Deployed(server, scheduler, bus)
            await until(lambda: _answers(made))
            yield made
    finally:
        if scheduler.process is not None:
            assert scheduler.end() == 0
        await server.stop()


async def _answers(made: Deployed) -> bool:
    try:
        return (await made.ask("org-show"))["code"] is None
    except Unavailable:
        return False


class Probe:
    """A plain client, and what the server refused it."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.client: Client

    async def settled(self) -> set[str]:
        """The subjects refused so far, in lower case. The server answers in order: when it has refused a last one that
        nobody may publish on, it has refused all before it."""
        await self.client.publish(NOBODYS, b"")
        async with asyncio.timeout(20):
            while NOBODYS not in self.refused:
                await asyncio.sleep(0.01)
        return self.refused - {NOBODYS}


@contextlib.asynccontextmanager
async def probe(url: str) -> AsyncIterator[Probe]:
    """For the length of a block."""
    made = Probe()

    async def heard(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            made.refused.add(str(error).split('"')[1].lower())

    made.client = await nats.connect(url, error_cb=heard, inbox_prefix=inbox_prefix(url), allow_reconnect=False)
    try:
        yield made
    finally:
        await made.client.close()
