"""The job folder that a sandbox can write: every access goes by descriptor, to regular files only, bounded.

Whatever lies there was put there by hostile code: symbolic links, pipes, devices, folders in place of files, files
without end. Nothing of that may be followed, block, or fill the memory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TRIES: Final = 5


class Tampered(Exception):
    """Something in the job folder is not what it has to be. The text says what."""


class Guarded:
    """A folder that a sandbox can write. What is made here belongs to the owner of the job folder."""

    def __init__(self, fd: int, owner: tuple[int, int]) -> None:
        self._fd = fd
        self._owner = owner

    @classmethod
    def open(cls, path: Path) -> Guarded:
        """The job folder itself; its own place is out of the sandbox's reach."""
        fd = os.open(path, _FOLDER)
        found = os.fstat(fd)
        return cls(fd, (found.st_uid, found.st_gid))

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def folder(self, name: str) -> Guarded:
        """A folder in this one; made when it is missing, and put aside when something else is in its place."""
        for _ in range(_TRIES):
            try:
                fd = os.open(name, _FOLDER, dir_fd=self._fd)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=self._fd)
                continue
            except OSError:
                self.discard(name)
                continue
            self._give(fd)
            return Guarded(fd, self._owner)
        raise Tampered(f"{name} in the job folder is no folder, and cannot be made one")

    def create(self, name: str, mode: int = 0o644) -> int:
        """A new, empty file; what was there is put aside. Returns a descriptor for writing, owned by the caller."""
        for _ in range(_TRIES):
            try:
                fd = os.open(name, _WRITE, mode, dir_fd=self._fd)
            except FileExistsError:
                self.discard(name)
                continue
            os.fchmod(fd, mode)
            self._give(fd)
            return fd
        raise Tampered(f"{name} in the job folder cannot be made")

    def append(self, name: str) -> int:
        """The file, for writing at its end; a new one when there is none that can be used. Owned by the caller."""
        try:
            fd = os.open(name, _APPEND, dir_fd=self._fd)
        except OSError:
            return self.create(name)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return self.create(name)

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """A new file with this content."""
        fd = self.create(name, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def empty(self, name: str, mode: int = 0o644) -> None:
        """An empty file. One that is there as `create` would make it is left: on some systems a new one is dear."""
        with contextlib.suppress(OSError):
            fd = os.open(name, _APPEND, dir_fd=self._fd)
            try:
                found = os.fstat(fd)
            finally:
                os.close(fd)
            plain = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode and found.st_nlink == 1
            if plain and not found.st_size and found.st_uid == self._owner[0]:
                return
        os.close(self.create(name, mode))

    def publish(self, name: str, data: bytes) -> None:
        """A new file that appears with all its content at once."""
        draft = f".{name}.{secrets.token_hex(4)}"
        self.write(draft, data)
        self.discard(name)
        os.rename(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def read(self, name: str, limit: int) -> bytes | None:
        """The content; None when there is no such file. Raises Tampered: no regular file, or over `limit` bytes."""
        data = self._start_of(name, limit + 1)
        if data is not None and len(data) > limit:
            raise Tampered(f"{name} is larger than {limit} bytes")
        return data

    def head(self, name: str, limit: int) -> tuple[bytes, bool]:
        """The first `limit` bytes, none when there is no such file; and whether there is more. Raises Tampered: no
        regular file."""
        data = self._start_of(name, limit + 1) or b""
        return data[:limit], len(data) > limit

    def _start_of(self, name: str, most: int) -> bytes | None:
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Tampered(f"{name} cannot be read: {error.strerror}") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Tampered(f"{name} is no regular file")
            return _read(fd, most)
        finally:
            os.close(fd)

    def names(self, limit: int) -> list[str]:
        """At most `limit` names in this folder."""
        found: list[str] = []
        with os.scandir(self._fd) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) >= limit:
                    break
        return found

    def discard(self, name: str) -> None:
        """Away with whatever has this name. A folder is only put aside: it may be as deep as it likes."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError:
            with contextlib.suppress(OSError):
                aside = f".aside-{secrets.token_hex(6)}"
                os.rename(name, aside, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _give(self, fd: int) -> None:
        if os.geteuid() == 0:
            os.fchown(fd, *self._owner)


def _read(fd: int, most: int) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, min(1 << 16, most - len(data))):
        data += chunk
    return bytes(data)
