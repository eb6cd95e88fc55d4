"""A channel joined to a socket of the sandbox: one connection of a forward, or of an agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import asyncssh

from pitstop_sandbox.channels.pump import Output, SocketInput


class Stream(asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """Owns the descriptor, from its making on. `moved` hears of every byte, `over` once of the end."""

    def __init__(self, fd: int, moved: Callable[[int], None], over: Callable[[Stream], None]) -> None:
        self._fd = fd
        self._moved = moved
        self._over = over
        self._holds: set[str] = set()
        self._closed = self._eof = False
        self._input: SocketInput | None = None
        self._output: Output | None = None
        self._channel: asyncssh.SSHTCPChannel[bytes]

    # -- what asyncssh calls ---------------------------------------------------------------------------------------

    def connection_made(self, chan: object) -> None:
        """The channel is open."""
        self._channel = chan  # type: ignore[assignment]

    def session_started(self) -> None:
        """Bytes may flow. (asyncssh's own forwarder drops what a server says first.)"""
        if self._closed:
            return
        self._input = SocketInput(os.dup(self._fd), self._channel.pause_reading, self._channel.resume_reading)
        self._output = Output(self._fd, self._deliver)
        for why in self._holds:
            self._output.hold(why)
        self._output.done.add_done_callback(self._output_ended)

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        """From the client."""
        self._moved(len(data))
        if self._input is not None:
            self._input.write(data)
        self._look()

    def eof_received(self) -> bool:
        """The client sends no more; what comes from inside still goes out."""
        self._eof = True
        if self._input is not None:
            self._input.end()
        self._look()
        return True

    def pause_writing(self) -> None:
        """The client's window is full."""
        self.hold("channel")

    def resume_writing(self) -> None:
        """There is room in it again."""
        self.release("channel")

    def connection_lost(self, _exc: Exception | None) -> None:
        """The channel is closed."""
        self.close()

    # -- what the connection calls ---------------------------------------------------------------------------------

    def hold(self, why: str) -> None:
        """Read no more from the socket for now."""
        self._holds.add(why)
        if self._output is not None:
            self._output.hold(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        self._holds.discard(why)
        if self._output is not None:
            self._output.release(why)

    def close(self) -> None:
        """Let the socket go."""
        if self._closed:
            return
        self._closed = True
        if self._input is not None and self._output is not None:
            self._input.close()
            self._output.close()
        else:
            os.close(self._fd)
        self._over(self)

    # -- the work --------------------------------------------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        self._moved(len(data))
        with contextlib.suppress(OSError):
            self._channel.write(data)

    def _output_ended(self, _done: asyncio.Future[None]) -> None:
        if not self._closed:
            with contextlib.suppress(OSError):
                self._channel.write_eof()
            self._look()

    def _look(self) -> None:
        """Nothing can come any more, and nobody takes anything: the channel closes after what it still holds."""
        ended = self._output is not None and self._output.done.done()
        if ended and not self._closed and (self._eof or (self._input is not None and self._input.closed)):
            self._channel.close()
