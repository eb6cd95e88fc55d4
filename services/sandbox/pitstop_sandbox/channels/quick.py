"""The short way of bytes through a session channel, when nothing stands in their way: a key that somebody types, and
its echo. Whatever is not so plain goes asyncssh's own way. With `seam`, the files that use its private names.

asyncssh reads a message in a dozen calls, and writes one in as many; for single keys that is most of the work of this
end. Here are the same tests and the same sums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from asyncssh.channel import SSHServerChannel

from pitstop_sandbox.channels.gate import CHANNEL_DATA

_HEAD: Final = struct.Struct(">BII")
"""Type, channel, length of what follows (RFC 4254 section 5.2)."""


def number_of(message: bytes) -> int:
    """The channel of a message of this layer."""
    return int.from_bytes(message[1:5], "big")


class QuickChannel(SSHServerChannel[bytes]):
    """A session channel. `send` takes whole messages for the client."""

    def __init__(self, conn: Any, loop: Any, send: Callable[..., None], *, window: int, max_pktsize: int) -> None:
        """Bytes both ways, a terminal allowed, no line editor."""
        super().__init__(conn, loop, True, False, False, 0, 0, None, "strict", window, max_pktsize)
        self._send = send

    def take(self, message: bytes) -> bool:
        """Take one CHANNEL_DATA of this channel. False: it is for asyncssh."""
        size = len(message) - _HEAD.size
        left = self._recv_window - size
        if (
            size <= 0
            or self._recv_paused
            or self._recv_buf
            or left < self._init_recv_window / 2  # it is to be told that it may send more
            or self._recv_state != "open"
            or self._send_state != "open"
            or int.from_bytes(message[5:9], "big") != size
        ):
            return False
        self._recv_window = left
        self._session.data_received(message[_HEAD.size :], None)
        return True

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send bytes to the client. Raises OSError when it is closed."""
        size = len(data)
        if (
            datatype is None
            and 0 < size <= self._send_window
            and not self._send_buf
            and not self._send_paused
            and self._send_state == "open"
            and self._send_chan is not None
        ):
            self._send_window -= size
            most = self._send_pktsize
            if size <= most:
                self._send(_HEAD.pack(CHANNEL_DATA, self._send_chan, size) + data)
            else:
                self._send(*(self._packet(data[at : at + most]) for at in range(0, size, most)))
        else:
            super().write(data, datatype)

    def _packet(self, data: bytes) -> bytes:
        return _HEAD.pack(CHANNEL_DATA, self._send_chan, len(data)) + data
