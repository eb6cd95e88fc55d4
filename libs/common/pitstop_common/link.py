"""The frames of the link between a relay worker and a sandbox host (one TLS 1.3 connection, dialled by the host).

A frame is `u32 length of payload | u8 kind | u32 connection | payload`. Connection numbers are chosen by the relay
and mean something only inside the link that opened them.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from pitstop_common.limits import MAX_FRAME

_HEADER = struct.Struct(">IBI")
_SECONDS = struct.Struct(">I")


class Kind(enum.IntEnum):
    """HELLO: host -> relay, first frame. OPEN: relay -> host, one login. DATA: one SSH message of type 80..127.
    PAUSE, RESUME: relay -> host, the client's buffer is full, is free. CLOSE: either way, with a reason. ENDING:
    relay -> host, this relay waits for its people to leave; connection 0, payload: so many seconds at most (u32)."""

    HELLO = 0
    OPEN = 1
    DATA = 2
    PAUSE = 3
    RESUME = 4
    CLOSE = 5
    PING = 6
    PONG = 7
    ENDING = 8


_KINDS = {int(kind): kind for kind in Kind}


class LinkError(Exception):
    """The other end broke the framing; the link is cut."""


BROKEN: Final = (LinkError, msgspec.DecodeError, UnicodeDecodeError)
"""What reading frames and their payloads can raise, whatever the other end sends: the link is cut."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who dialled. `nonce` is that of the dial request."""

    host: str
    incarnation: str
    worker: str
    nonce: str


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """A login and its proof: the user's own signature over `session_id` and `message` (RFC 4252 section 7), or an
    access token."""

    job: str
    session_id: bytes
    message: bytes = b""
    signature: bytes = b""
    key: bytes = b""
    """The blob of the public key that signed, or of its certificate."""
    token: str = ""
    """In place of the three above."""
    client: str = ""
    client_version: str = ""
    trace: str = ""


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is a stable code, `text` what the person reads."""

    reason: str
    text: str = ""


class Frame(msgspec.Struct, frozen=True):
    """One frame, whole."""

    kind: Kind
    connection: int
    payload: bytes


def pack(kind: Kind, connection: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return _HEADER.pack(len(payload), kind, connection) + payload


def pack_ending(seconds: float) -> bytes:
    """The payload of ENDING."""
    return _SECONDS.pack(min(0xFFFFFFFF, max(0, round(seconds))))


def ending(payload: bytes) -> int:
    """Seconds. Raises LinkError."""
    if len(payload) != _SECONDS.size:
        raise LinkError("an ENDING frame of the wrong length")
    return int(_SECONDS.unpack(payload)[0])


class Reader:
    """Cuts a byte stream into frames. Pure: no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 0
        """Bytes without which there is nothing to cut."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """All frames that are whole now. Raises LinkError on an unknown kind or too long a payload."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        at, size, self._wanted = 0, len(data), _HEADER.size
        while size - at >= _HEADER.size:
            length, kind, connection = _HEADER.unpack_from(data, at)
            if length > MAX_FRAME:
                raise LinkError(f"a frame of {length} bytes; the limit is {MAX_FRAME}")
            start = at + _HEADER.size
            if start + length > size:
                self._wanted = _HEADER.size + length
                break
            known = _KINDS.get(kind)
            if known is None:
                raise LinkError(f"unknown kind of frame: {kind}")
            at = start + length
            yield Frame(known, connection, data[start:at])
        if at < size:
            self._buffer += data[at:]
