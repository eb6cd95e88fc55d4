"""The end of a session channel: the last byte of output, then the exit status."""

from __future__ import annotations

import asyncio

import asyncssh

from pitstop_sandbox.channels.request import Request
from pitstop_sandbox.channels.running import Running


class Ending:
    """Of one channel. `lost`: is set when it is closed."""

    def __init__(self, lost: asyncio.Event) -> None:
        self._lost = lost
        self._drained = asyncio.Event()

    def drained(self) -> None:
        """There is room in the client's window again, or the channel is closed."""
        self._drained.set()

    async def tell(self, channel: asyncssh.SSHServerChannel[bytes], running: Running, request: Request) -> None:
        """Send what is left of the output, and how the process ended. Returns at once when the channel is closed."""
        await running.flushed(self._lost)
        await self._drain(channel)
        if self._lost.is_set():
            return
        code, name = await running.exit()
        if channel.get_terminal_type() is None and (text := request.hint(code)):
            channel.write_stderr(f"pitstop: {text}.\n".encode())
        if name:
            channel.exit_with_signal(name)
        else:
            channel.exit(code)

    async def _drain(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        """The exit status follows the last byte: a client may stop reading at it."""
        self._drained.clear()
        channel.set_write_buffer_limits(0, 0)
        if channel.get_write_buffer_size() and not self._lost.is_set():
            await self._drained.wait()
