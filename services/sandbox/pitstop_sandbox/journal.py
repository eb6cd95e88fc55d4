"""The journal of a job attempt: an append-only file of what happened. The state of the job is its fold.

A frame is `u32 length | u32 crc32 | msgpack [now, event]`. A torn tail (the process was killed while writing) is
dropped. Nothing is fsynced: a killed process loses nothing of what it wrote, and with the machine goes the sandbox.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.events import Event

_MAGIC: Final = b"PITSTOP-JOURNAL-1\n"
_HEADER: Final = struct.Struct(">II")
_MAX_FRAME: Final = 64 * 1024 * 1024


class JournalError(Exception):
    """The journal cannot be used: in use by another process, or written by another version."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """An event and the time it was decided at, seconds since the epoch."""

    now: float
    event: Event


_decoder = msgspec.msgpack.Decoder(Entry)
_encoder = msgspec.msgpack.Encoder()


class Journal:
    """An open journal. One process at a time has it open."""

    def __init__(self, path: Path) -> None:
        """Open or begin it. Raises JournalError when another process has it open."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.entries = self._load()
        except BlockingIOError:
            os.close(self._fd)
            raise JournalError(f"{path} is open in another process; it runs this job") from None
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, now: float, event: Event) -> None:
        """Write an event. When this returns it survives a kill of the process."""
        payload = _encoder.encode(Entry(now, event))
        data = memoryview(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._fd)

    def _load(self) -> list[Entry]:
        data = b"".join(iter(lambda: os.read(self._fd, 1 << 20), b""))
        if not data.startswith(_MAGIC):
            if not _MAGIC.startswith(data[: len(_MAGIC)]):
                raise JournalError("not a journal of this version of Pitstop")
            os.ftruncate(self._fd, 0)
            os.write(self._fd, _MAGIC)
            return []
        frames = list(_frames(data, len(_MAGIC)))
        os.ftruncate(self._fd, frames[-1][0] if frames else len(_MAGIC))
        try:
            return [_decoder.decode(payload) for _, payload in frames]
        except msgspec.MsgspecError as error:
            raise JournalError(f"an event of another version of Pitstop: {error}") from error


def _frames(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length
        payload = data[start + _HEADER.size : end]
        if length > _MAX_FRAME or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield end, payload
        start = end
