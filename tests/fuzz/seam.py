"""The connection layer of the sandbox host: messages of a client that is logged in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from asyncssh.packet import Byte, SSHPacket, String, UInt32
from tests.fuzz.job import PlayedJob
from tests.fuzz.messages import CONVERSATIONS, WRONG
from tests.fuzz.mutate import Mutator
from tests.ssh_support import JOB

from pitstop_relay.proving import Proving
from pitstop_sandbox.channels.forwards import Forwards
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.channels.seam import Connection
from pitstop_sandbox.channels.session import ChannelSession
from pitstop_sandbox.ports import Session

_OFTEN: Final = (0.01, 0.05, 0.2)
_APART: Final = 16
_GLOBAL: Final = b"\x50"
_OPEN, _OPENED, _REFUSED = 90, 91, 92


class Numbers:
    """A conversation calls its channels 0, 1, ...: the client has others in each turn, and the server its own."""

    def __init__(self, first: int, answers: list[bytes]) -> None:
        self._first = first
        self._answers = answers

    def placed(self, message: bytes) -> bytes:
        """With the numbers of this turn."""
        if message[0] == _OPEN:
            packet = SSHPacket(message[1:])
            kind, number = packet.get_string(), packet.get_uint32()
            return Byte(_OPEN) + String(kind) + UInt32(self._first + number) + packet.get_remaining_payload()
        if message[0] <= _REFUSED:
            return message
        mine = UInt32(self._first + int.from_bytes(message[1:5], "big"))
        for answer in self._answers:
            if answer[0] == _OPENED and answer[1:5] == mine:
                return message[:1] + answer[5:9] + message[5:]
        return message


class Line:
    """Of a shell that nobody takes over."""

    async def alive(self) -> bool:
        return True

    def drop(self) -> None:
        """Nobody asks for it."""

    def hold(self, why: str) -> None:
        """Nobody asks for it."""

    def release(self, why: str) -> None:
        """Nobody asks for it."""


class Seam:
    """Connections one after the other, each with tasks that end on their own."""

    def __init__(self) -> None:
        self._job = PlayedJob(JOB)
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole = 0

    async def converse(self, mutator: Mutator) -> int:
        """A connection from its first message to its end."""
        person = Session(id="s", user="ada", fingerprint="SHA256:x", client="")
        forwards = Forwards(self._job, person, Rules(), self._tasks)
        answers: list[bytes] = []
        ends: list[str] = []

        def new_session() -> ChannelSession:
            return ChannelSession(self._job, person, forwards, Line(), self._tasks)

        connection = Connection(new_session, forwards, answers.append, ends.append)
        proving = Proving(lambda _keys: b"proof")
        often, sent = mutator.random.choice(_OFTEN), 0
        for turn in range(3):
            said = mutator.random.choice(WRONG if mutator.chance(0.1) else CONVERSATIONS)
            numbers = Numbers(turn * _APART, answers)
            for message in mutator.stream(said, 0):
                sound = numbers.placed(message)
                said_now = mutator.changed(sound) if mutator.chance(often) else sound
                if said_now[:1] == _GLOBAL:
                    proving.asked(said_now)
                connection.feed(said_now)
                sent += 1
                for _ in range(8 if sound[0] == _OPEN else mutator.random.choice((0, 1, 1, 8))):
                    await asyncio.sleep(0)
                if mutator.chance(0.02):
                    forwards.hold("client")
                    forwards.release("client")
                if ends:
                    break
        await asyncio.sleep(0)
        self._whole += not ends
        connection.lost()
        assert len(ends) <= 1, ends
        assert ends != ["internal error"]
        assert connection.channels == 0
        for answer in answers:
            assert proving.answered(answer)[1:] in (answer[1:], b"proof")
        assert all(80 <= answer[0] <= 127 for answer in answers), "only messages of this layer go back"
        return sent

    async def settle(self) -> None:
        """All processes and forwards have ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def check(self) -> None:
        """Nothing to be said of it beyond what each conversation says."""

    def reached(self) -> dict[str, int]:
        """Whole conversations, and what was started or dialled for them."""
        return {"whole": self._whole, "started": self._job.made}


@contextlib.asynccontextmanager
async def seam(_folder: Path) -> AsyncIterator[Seam]:
    """As a part."""
    yield Seam()
