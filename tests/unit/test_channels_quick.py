"""The short way of a channel's bytes gives what asyncssh's own way gives, message for message."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import asyncssh
from asyncssh.channel import SSHChannel, SSHServerChannel
from asyncssh.packet import Boolean, Byte, String, UInt32
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_channels_seam import forwards

from pitstop_sandbox.channels.gate import window
from pitstop_sandbox.channels.quick import QuickChannel, number_of
from pitstop_sandbox.channels.seam import MAX_PACKET, Connection

WINDOW = window(0)


class Slow(Connection):
    """Channels as asyncssh makes them."""

    def session_channel(self) -> Any:
        return self.create_server_channel(encoding=None, window=WINDOW, max_pktsize=MAX_PACKET)


class Recorder(asyncssh.SSHServerSession[bytes]):
    """Writes down what it hears, and does what its list says at each piece of data."""

    def __init__(self, heard: list[Any], deeds: list[str]) -> None:
        self.heard, self.deeds = heard, list(deeds)

    def connection_made(self, chan: Any) -> None:
        self.channel = chan

    def shell_requested(self) -> bool:
        return True

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.heard.append((type(data), bytes(data), datatype))
        deed = self.deeds.pop(0) if self.deeds else "echo"
        try:
            if deed == "echo":
                self.channel.write(data)
            elif deed == "error":
                self.channel.write_stderr(data)
            elif deed == "much":
                self.channel.write(data[:1] * 30_000)
            elif deed == "pause":
                self.channel.pause_reading()
                asyncio.get_running_loop().call_soon(self.resume)
            elif deed == "eof":
                self.channel.write_eof()
            elif deed == "exit":
                self.channel.exit(3)
        except OSError as error:
            self.heard.append(str(error))

    def resume(self) -> None:
        self.heard.append("on")
        self.channel.resume_reading()

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")


def data(content: bytes, *, channel: int = 0, length: int | None = None) -> bytes:
    return Byte(94) + UInt32(channel) + UInt32(len(content) if length is None else length) + content


OPEN = Byte(90) + String("session") + UInt32(7) + UInt32(2000) + UInt32(900)
SHELL = Byte(98) + UInt32(0) + String("shell") + Boolean(True)
MESSAGES = st.one_of(
    st.binary(max_size=300).map(data),
    st.integers(1, 3000).map(lambda size: data(b"x" * size)),
    st.sampled_from([899, 900, 901, 5000, 60_000]).map(lambda size: data(b"x" * size)),
    st.just(data(b"x" * (WINDOW // 2))),
    st.builds(data, st.binary(max_size=5), channel=st.integers(0, 2), length=st.integers(0, 9)),
    st.binary(max_size=20).map(lambda rest: Byte(94) + rest),
    st.integers(0, 4000).map(lambda size: Byte(93) + UInt32(0) + UInt32(size)),
    st.sampled_from([Byte(96) + UInt32(0), Byte(97) + UInt32(0), SHELL]),
)
DEEDS = st.lists(
    st.sampled_from(["echo", "echo", "echo", "error", "much", "pause", "eof", "exit", "nothing"]), max_size=12
)


@settings(max_examples=200)
@given(st.lists(MESSAGES, max_size=25), DEEDS)
def test_both_ways_are_one(messages: list[bytes], deeds: list[str]) -> None:
    async def through(kind: type[Connection]) -> tuple[list[Any], list[bytes], list[str]]:
        heard: list[Any] = []
        sent: list[bytes] = []
        ended: list[str] = []
        connection = kind(
            lambda: Recorder(heard, deeds), forwards(), lambda *messages: sent.extend(messages), ended.append
        )
        for number, message in enumerate((OPEN, SHELL, *messages)):
            connection.feed(message)
            for _ in range(4 if number < 2 or number % 3 == 0 else 0):
                await asyncio.sleep(0)
        connection.lost()
        for _ in range(4):
            await asyncio.sleep(0)
        return heard, [bytes(message) for message in sent], ended

    async def main() -> None:
        assert await through(Connection) == await through(Slow)

    asyncio.run(main())


def test_a_key_and_its_echo_go_the_short_way() -> None:
    async def main() -> None:
        taken: list[bool] = []

        class Watched(QuickChannel):
            def take(self, message: bytes) -> bool:
                taken.append(super().take(message))
                return taken[-1]

        class Watching(Connection):
            def session_channel(self) -> QuickChannel:
                return Watched(self, self._loop, self._send_message, window=WINDOW, max_pktsize=MAX_PACKET)

        heard: list[Any] = []
        sent: list[bytes] = []
        connection = Watching(
            lambda: Recorder(heard, []), forwards(), lambda *messages: sent.extend(messages), lambda _why: None
        )
        for message in (OPEN, SHELL):
            connection.feed(message)
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        connection.feed(data(b"k"))
        assert taken == [True] and sent[-1] == Byte(94) + UInt32(7) + String(b"k")
        assert number_of(data(b"k", channel=5)) == 5
        connection.lost()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_the_names_of_the_short_way() -> None:
    made = inspect.getsource(SSHChannel.__init__)
    for name in (
        "_recv_window", "_init_recv_window", "_recv_paused", "_recv_buf", "_recv_state", "_send_state", "_session",
        "_send_window", "_send_pktsize", "_send_buf", "_send_paused", "_send_chan",
    ):  # fmt: skip
        assert f"self.{name}" in made, name
    assert list(inspect.signature(SSHServerChannel.__init__).parameters) == [
        "self", "conn", "loop", "allow_pty", "line_editor", "line_echo", "line_history", "max_line_length", "encoding",
        "errors", "window", "max_pktsize",
    ]  # fmt: skip
