"""Somebody who is let in, and says changed messages: through the relay, the link and the host's channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from asyncssh.packet import Boolean, Byte, String
from tests.fuzz.door import Client, Door, open_relay, request
from tests.fuzz.job import PlayedJob
from tests.fuzz.messages import CONVERSATIONS, WRONG
from tests.fuzz.mutate import Mutator
from tests.ssh_support import JOB, World

_OFTEN: Final = (0.02, 0.1, 0.3)
_WITHIN: Final = 60.0
_ANSWER: Final = 0.02
_OPEN: Final = b"\x5a"


class Inside(Door):
    """Each conversation is a login of its own."""

    def __init__(self, made: World) -> None:
        super().__init__(made)
        self._job = PlayedJob(JOB)
        made.host.find = lambda _name: self._job
        self._sound = 0

    async def converse(self, mutator: Mutator) -> int:
        """A login, a conversation, and an end of some kind."""
        client = Client(self._key, "curve25519-sha256", "aes128-gcm@openssh.com")
        wire = self.knock(client.wire)
        client.begin(wire)
        async with asyncio.timeout(_WITHIN):
            await client.secret.wait()
            before = self._job.opened_count
            client.say(Byte(5) + String("ssh-userauth"))
            client.say(self._login(client))
            while self._job.opened_count == before:
                await asyncio.sleep(0)
        said = mutator.random.choice(WRONG if mutator.chance(0.1) else CONVERSATIONS)
        sent, passed = 2, self._relay.metrics.passed
        for message in mutator.stream(said, mutator.random.choice(_OFTEN)):
            client.say(message)
            sent += 1
            if message[:1] == _OPEN or mutator.chance(0.2):  # the answer goes through real TLS
                heard = passed.down
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWER):
                        while passed.down == heard and not wire.is_closing():
                            await asyncio.sleep(0.0005)
        if mutator.chance(0.2):  # bytes that are no packet
            wire.give(mutator.random.randbytes(60))
        if mutator.chance(0.5):
            wire.end()
        else:
            wire.abort()
        async with asyncio.timeout(_WITHIN):
            await wire.gone.wait()
        return sent

    async def settle(self) -> None:
        """All have left, and all that they started."""
        await super().settle()
        while self._world.host.sessions or self._job.opened_count != self._job.closed_count:
            await asyncio.sleep(0.001)

    def check(self) -> None:
        """Who was let in had signed."""
        assert self._world.metric("pitstop_relay_auth_total", method="publickey", result="ok") == self._sound
        assert self._job.opened_count == self._sound and self._world.host.sessions == 0
        assert self._relay._doorkeeper.count == 0 and not self._guests

    def reached(self) -> dict[str, int]:
        """Logins, and what was started or dialled in them."""
        return {"let in": self._job.opened_count, "started": self._job.made}

    def _login(self, client: Client) -> bytes:
        self._sound += 1
        blob = self._key.public_data
        true = request(JOB) + String("publickey") + Boolean(True) + String("ssh-ed25519") + String(blob)
        return true + String(self._key.sign(String(client.session_id) + true, b"ssh-ed25519"))


@contextlib.asynccontextmanager
async def inside(folder: Path) -> AsyncIterator[Inside]:
    """As a part."""
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr("pitstop_relay.transport._FLUSH_WITHIN", 0.01)  # a wire has nothing to flush
        async with open_relay(folder) as made:
            yield Inside(made)
