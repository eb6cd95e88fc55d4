"""The scheduler as a real process on a real server; the test plays the host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.pull import Pull
from pitstop_common.streams import host_consumer, pool_consumer
from pitstop_common.telemetry import headers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3uZQCQ0GzBcPjVdN3cS0jVvWHAm3F1o5YyTnZ0vY6a"


class Scheduler:
    """One process."""

    def __init__(self, url: str, folder: Path, name: str, **settings: str) -> None:
        self.ready = folder / f"{name}.ready"
        self.env = {
            **os.environ, "PITSTOP_NATS_URL": url, "PITSTOP_READY_FILE": str(self.ready),
            "PITSTOP_ADMINS": "*/ada", **{f"PITSTOP_{key.upper()}": value for key, value in settings.items()},
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns when it is ready."""
        self.ready.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, "-m", "pitstop_scheduler"], env=self.env)
        await until(self.ready.exists)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status


@contextlib.asynccontextmanager
async def scheduling(url: str, folder: Path, **settings: str) -> AsyncIterator[Scheduler]:
    """One that is up for the length of a block, and ends well."""
    one = Scheduler(url, folder, "one", **settings)
    try:
        await one.start()
        yield one
    finally:
        status = one.end()
    assert status == 0


async def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Wait for a state."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "the state did not come"
        await asyncio.sleep(0.02)


class PlayedHost:
    """Claims and reports as a host does."""

    def __init__(self, bus: Bus, name: str = "h1") -> None:
        self.bus, self.name, self.count = bus, name, 0
        self.starts = Pull(bus, "WORK", pool_consumer("default"))
        self.commands = Pull(bus, "WORK", host_consumer(name))

    async def announce(self, capacity: int) -> None:
        """So many jobs may run here."""
        fact = m.SandboxRoom(id=f"room.{self.name}.{capacity}", time="", org="_", run="_", host=self.name,
                             incarnation="i1", pool="default", capacity=capacity, serial=1)  # fmt: skip
        await self.say(fact)

    async def say(self, fact: m.Message) -> None:
        """Store a fact."""
        tag = str(fact.__struct_config__.tag)
        await self.bus.store_surely(subjects.about(tag, fact.org, fact.run), m.encode(fact), headers(fact.id))

    async def take(self) -> m.Start:
        """The next start, acked."""
        while True:
            for item in await self.starts.next(1, 1):
                await item.ack()
                return m.decode_start(item.data)

    async def report(self, kind: type[m.HostFact], start: m.Start, **fields: Any) -> None:
        """A fact about a job that was taken."""
        self.count += 1
        await self.say(kind(id=f"{self.name}.{self.count}", time="", org=start.org, run=start.run, job=start.job,
                            attempt=start.attempt, host=self.name, incarnation="i1", **fields))  # fmt: skip

    async def close(self) -> None:
        """Stop pulling."""
        await self.starts.close()
        await self.commands.close()


@contextlib.asynccontextmanager
async def playing(bus: Bus, capacity: int) -> AsyncIterator[PlayedHost]:
    """One with room for so many jobs, for the length of a block."""
    played = PlayedHost(bus)
    try:
        await played.announce(capacity)
        yield played
    finally:
        await played.close()


async def ask(bus: Bus, verb: str, **body: Any) -> Any:
    """The answer of `api.acme.ada.<verb>`; of an error also its `code`."""
    reply = await bus.request(subjects.api("acme", "ada", verb), json.dumps(body).encode(), timeout=6)
    code = (reply.headers or {}).get("Nats-Service-Error-Code")
    if code:
        return {"code": code, **json.loads(reply.data)}
    return json.loads(reply.data)


def request(id: str, **more: Any) -> bytes:
    """The body of a small request."""
    return json.dumps({"id": id, "org": "acme", "project": "web", "steps": [{"run": "make test"}], **more}).encode()
