"""What this host has fetched before: bare repositories, one for each org, URL and credential.

An entry is used by one at a time while it is fetched into, by many while it is read. It is only ever saved time: one
that is broken is made anew. Nothing of it comes into a sandbox but by git's own protocol, as a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.05
_PATIENT_LOOKS: Final = 20
_GONE: Final = "gone-"
_LOCK: Final = ".lock"


def key_of(org: str, url: str, *credential: str) -> str:
    """The name of an entry. What one credential may read is in no other's entry, nor is another org's."""
    told = hashlib.sha256()
    for part in (org, url, *credential):
        told.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return told.hexdigest()[:40]


class Entry:
    """One that is locked. `path`: its bare repository, which may not be there yet."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def share(self) -> None:
        """From now on it is only read: others may, too."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def spoil(self) -> None:
        """It is of no use: whoever has it next for themselves makes it anew. Those who read it may go on."""
        os.pwrite(self._lock, b"spoilt", 0)


class Cache:
    """The entries in a folder of the host's own."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size`: bytes that are kept, of those used last."""
        self._folder = folder
        self._size = size

    @contextlib.asynccontextmanager
    async def entry(self, key: str, waits: Callable[[], None] = lambda: None) -> AsyncIterator[Entry]:
        """The entry, for its one user. Waits while another has it, and says so when that takes long."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = self._folder / f"{key}{_LOCK}"
        while True:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                await _locked(lock, waits)
                if _same(lock, name):
                    os.utime(lock)
                    if os.fstat(lock).st_size:
                        await asyncio.to_thread(_remove, self._folder / key)
                        os.ftruncate(lock, 0)
                    yield Entry(self._folder / key, lock)
                    return
            finally:
                os.close(lock)

    async def sweep(self) -> None:
        """Remove the entries that were not used for longest until the rest is within the size, but none in use."""
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        if not self._folder.is_dir():
            return
        for left in self._folder.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)
        used = []
        for lock in self._folder.glob(f"*{_LOCK}"):
            with contextlib.suppress(FileNotFoundError):
                used.append((lock.stat().st_mtime, lock, _size(lock.with_suffix(""))))
        total = sum(size for _, _, size in used)
        for _, name, size in sorted(used):
            if total <= self._size:
                return
            if _removed(name):
                total -= size


def _removed(name: Path) -> bool:
    try:
        lock = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(name.with_suffix(""))
        name.unlink()
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(path: Path) -> None:
    gone = path.with_name(_GONE + secrets.token_hex(8))
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


async def _locked(lock: int, waits: Callable[[], None]) -> None:
    for look in itertools.count():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if look == _PATIENT_LOOKS:
                waits()
            await asyncio.sleep(_LOOK_SECONDS)


def _same(lock: int, name: Path) -> bool:
    """Is it still the file of that name: it may have been removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(name))  # noqa: PTH116
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{folder}/{file}").st_size
    return total
