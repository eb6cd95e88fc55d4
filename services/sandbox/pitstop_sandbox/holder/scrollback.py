"""The last that a terminal showed, in a file: it outlives whoever read the terminal.

One writer at a time: the host process while it has the terminal, the holder while there is none.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SIZE: Final = 1024 * 1024
"""Kept of each terminal, bytes; the file is up to twice as long."""
_HEAD = 8
"""Bytes in front that say how many were cut off before them."""


class Scrollback:
    """A file that is written at its end, and made anew when it is twice as long as it need be. What a full disk does
    not take is missing; the terminal goes on."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError."""
        self._path = os.fspath(path)
        self._fd = self._open(self._path, os.O_APPEND)
        if not os.fstat(self._fd).st_size:
            os.write(self._fd, bytes(_HEAD))

    def append(self, data: bytes) -> None:
        """Keep these bytes."""
        data = data[-SIZE:]
        try:
            os.write(self._fd, data)
            if os.fstat(self._fd).st_size > 2 * SIZE:
                self._shorten()
        except OSError:
            return

    def read(self) -> bytes:
        """The last SIZE bytes, whoever wrote them. Raises OSError."""
        size = os.fstat(self._fd).st_size - _HEAD
        return os.pread(self._fd, SIZE, _HEAD + max(0, size - SIZE))

    @property
    def position(self) -> int:
        """How many bytes were ever kept. Raises OSError."""
        return self._dropped() + os.fstat(self._fd).st_size - _HEAD

    def since(self, position: int) -> bytes:
        """What was kept behind a position, as far as it is still there. Raises OSError."""
        return os.pread(self._fd, 4 * SIZE, _HEAD + max(0, position - self._dropped()))

    def close(self) -> None:
        """The file stays."""
        os.close(self._fd)

    def _dropped(self) -> int:
        return int.from_bytes(os.pread(self._fd, _HEAD, 0), "big")

    def _shorten(self) -> None:
        draft = f"{self._path}.new"
        last = self.read()
        head = (self.position - len(last)).to_bytes(_HEAD, "big")
        fd = self._open(draft, os.O_TRUNC | os.O_APPEND)
        if os.write(fd, head + last) < _HEAD + len(last):
            os.close(fd)
            raise OSError("the disk is full")
        os.replace(draft, self._path)  # noqa: PTH105
        os.close(self._fd)
        self._fd = fd

    @staticmethod
    def _open(path: str, more: int) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | more, 0o600)
