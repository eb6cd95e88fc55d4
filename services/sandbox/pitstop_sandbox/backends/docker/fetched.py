"""The images that this host has fetched itself: written down, and removed when they are too many, the least used first.

No other image is ever touched: not one that was there before, nor one whose name means another image by now. The engine
refuses to remove what a container uses, and is never forced.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.backends.docker.engine import CONFLICT, NOT_FOUND, Engine, EngineError

log = logging.getLogger(__name__)

FILE: Final = "images.json"
LIMIT: Final = 20 * 2**30
KEEP_SECONDS: Final = 60.0
"""So long after a job has asked for it, it is not removed: its container is being made."""


class Fetched(msgspec.Struct, frozen=True):
    """An image. `size`: unpacked, bytes; `used`: when a job asked for it last, seconds since the epoch."""

    id: str
    size: int
    used: float


def surplus(images: Mapping[str, Fetched], limit: int, now: float, keep: float, stay: Collection[str]) -> str | None:
    """The name of the one that is to go next: the least used; None: they are within the limit. `stay`: those that
    cannot."""
    if sum(one.size for one in images.values()) <= limit:
        return None
    free = [(one.used, name) for name, one in images.items() if now - one.used >= keep and name not in stay]
    return min(free)[1] if free else None


class FetchedImages:
    """Of one host. `root`: its folder; None: nothing is written down, so nothing is removed. `limit`: bytes."""

    def __init__(self, engine: Engine, root: Path | None, limit: int, keep: float = KEEP_SECONDS) -> None:
        self._engine, self._limit, self._keep = engine, limit, keep
        self._file = root / FILE if root else None
        self._images = _read(self._file)

    def used(self, name: str, id: str) -> None:
        """A job asks for it."""
        one = self._images.get(name)
        if one is None:
            return
        if one.id != id:  # somebody else has fetched or tagged it since: it is theirs
            del self._images[name]
            self._write()
            return
        now = time.time()
        self._images[name] = Fetched(id, one.size, now)
        if now - one.used >= self._keep:
            self._write()

    def add(self, name: str, id: str, size: int) -> None:
        """It was fetched by this host, which had none like it."""
        self._images[name] = Fetched(id, size, time.time())
        self._write()

    async def trim(self) -> None:
        """Remove what is too much."""
        if self._file is None:
            return
        stay: set[str] = set()
        while (name := surplus(self._images, self._limit, time.time(), self._keep, stay)) is not None:
            one, about = self._images[name], await self._engine.image(name)
            if self._images.get(name) != one:
                continue  # a job has asked for it meanwhile
            if about is not None and about["Id"] == one.id and not await self._gone(name):
                stay.add(name)
            elif self._images.pop(name, None):
                self._write()

    async def _gone(self, name: str) -> bool:
        try:
            await self._engine.remove_image(name)
        except EngineError as error:
            if error.status == CONFLICT:  # a container has it
                return False
            if error.status != NOT_FOUND:
                log.warning("the image %s is not removed: %s", name, error)
                return False
        log.info("the image %s was removed: this host's images are over their limit", name)
        return True

    def _write(self) -> None:
        if self._file is not None:
            fresh = self._file.with_suffix(".tmp")
            fresh.write_bytes(msgspec.json.encode(self._images))
            os.replace(fresh, self._file)  # noqa: PTH105


def _read(file: Path | None) -> dict[str, Fetched]:
    """What cannot be read is no list: then nothing is removed."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Fetched]) if file else {}
    except (OSError, msgspec.MsgspecError):
        return {}
