"""What goes over a holder's socket: JSON objects, each after its length. File descriptors ride along (SCM_RIGHTS)."""

from __future__ import annotations

import json
import struct

# The module typing costs every holder 0.6 MB: here it is for the type checker alone.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Message = dict[str, Any]
else:
    Message = dict

LENGTH: Final = struct.Struct(">I")
MAX_FRAME: Final = 16 * 1024 * 1024
MAX_FDS: Final = 8
SOCKET: Final = "control.sock"
STATE: Final = "state.json"
LOCK: Final = "lock"
ENDED: Final = "ended.json"


class FrameError(ValueError):
    """The other end does not speak this protocol."""


def encode(message: Message) -> bytes:
    """One frame."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return LENGTH.pack(len(body)) + body


class Decoder:
    """Makes messages of the bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with `data`. Raises FrameError."""
        self._buffer += data
        messages = []
        while (body := self._take()) is not None:
            message = json.loads(body)
            if not isinstance(message, dict):
                raise FrameError("a message is not an object")
            messages.append(message)
        return messages

    def _take(self) -> bytes | None:
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise FrameError(f"a message of {length} bytes is over the limit of {MAX_FRAME}")
        end = LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[LENGTH.size : end])
        del self._buffer[:end]
        return body
