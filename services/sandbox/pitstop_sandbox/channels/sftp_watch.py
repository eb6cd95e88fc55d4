"""What a client asks of an sftp server, read from its bytes on their way in, for the audit. Pure.

The server and the image it comes from are the job's own and are not asked. Requests are those of version 3 (the
draft-ietf-secsh-filexfer-02 that every server speaks), with OpenSSH's extensions. Nothing is believed of them: lengths
are bounded, and what cannot be read is passed over; a server would refuse it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

KEPT: Final = 16 * 1024
"""Bytes of a request that are looked at: two paths and what stands around them. The rest (of a write) is skipped."""
_LENGTH: Final = struct.Struct(">I")
_HEAD: Final = 5
"""Type and request id, before the fields."""
_OPEN, _EXTENDED = 3, 200
_READS, _WRITES = 0x1, 0x2 | 0x4 | 0x8 | 0x10
"""Bits of an open: to read; to write, append, create or truncate."""
_NAMES: Final[dict[int, tuple[str, int]]] = {
    9: ("change attributes of", 1), 11: ("list", 1), 13: ("remove", 1), 14: ("make folder", 1),
    15: ("remove folder", 1), 18: ("rename", 2), 20: ("link", 2),
}  # fmt: skip
"""By type: what is asked, and how many paths follow."""
_EXTENSIONS: Final[dict[bytes, tuple[str, int]]] = {
    b"posix-rename@openssh.com": ("rename", 2), b"hardlink@openssh.com": ("link", 2),
    b"lsetstat@openssh.com": ("change attributes of", 1), b"copy-file": ("copy", 2),
}  # fmt: skip
_SAY_NOTHING: Final = frozenset({
    b"statvfs@openssh.com", b"fstatvfs@openssh.com", b"fsync@openssh.com", b"limits@openssh.com", b"copy-data",
    b"expand-path@openssh.com", b"home-directory", b"users-groups-by-id@openssh.com",
})  # fmt: skip
"""They name no file to change, or one that was opened."""


class Operation(NamedTuple):
    """What is asked of which paths, as the client wrote them."""

    what: str
    paths: tuple[str, ...]


class SftpWatch:
    """Of one channel. `tell` hears of each operation before the server does."""

    def __init__(self, tell: Callable[[Operation], None]) -> None:
        self._tell = tell
        self._size = -1
        """Bytes of the request in progress that are still to come; -1: its length is."""
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Bytes from the client. Holds no more than KEPT of them."""
        at = 0
        while at < len(data):
            if self._size < 0:
                taken = data[at : at + _LENGTH.size - len(self._kept)]
                self._kept += taken
                at += len(taken)
                if len(self._kept) == _LENGTH.size:
                    (self._size,) = _LENGTH.unpack(self._kept)
                    self._kept.clear()
            else:
                piece = min(self._size, len(data) - at)
                self._kept += data[at : at + min(piece, KEPT - len(self._kept))]
                self._size -= piece
                at += piece
            if self._size == 0:
                found = read(bytes(self._kept))
                self._kept.clear()
                self._size = -1
                if found is not None:
                    self._tell(found)


def read(request: bytes) -> Operation | None:
    """The operation that a request (without its length) asks for; None: none that is to be known, or it cannot be
    read."""
    try:
        return _read(request)
    except (_Cut, struct.error):
        return None


def _read(request: bytes) -> Operation | None:
    if len(request) < _HEAD:
        return None
    kind, rest = request[0], request[_HEAD:]
    if kind == _OPEN:
        path, rest = _string(rest)
        (flags,) = _LENGTH.unpack_from(rest)
        words = [word for word, bits in (("read", _READS), ("write", _WRITES)) if flags & bits]
        return Operation(" and ".join(words) or "open", (_text(path),))
    if kind == _EXTENDED:
        name, rest = _string(rest)
        if name in _SAY_NOTHING:
            return None
        what, count = _EXTENSIONS.get(name, ("ask for the extension", 0))
        return Operation(what, _paths(rest, count) if count else (_text(name),))
    if kind not in _NAMES:
        return None
    what, count = _NAMES[kind]
    return Operation(what, _paths(rest, count))


def _paths(rest: bytes, count: int) -> tuple[str, ...]:
    found = []
    for _ in range(count):
        path, rest = _string(rest)
        found.append(_text(path))
    return tuple(found)


def _string(data: bytes) -> tuple[bytes, bytes]:
    (size,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + size
    if end > len(data):
        raise _Cut
    return data[_LENGTH.size : end], data[end:]


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


class _Cut(Exception):
    """A field is longer than what there is."""
