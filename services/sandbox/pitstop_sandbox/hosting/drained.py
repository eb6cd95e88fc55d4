"""Whether this host is to take no new job: written down, so that a restart does not undo it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_FILE: Final = "drained.json"


class Drained(msgspec.Struct, frozen=True):
    """The newest word. `serial` counts up; 0: there was none."""

    on: bool = False
    serial: int = 0


def read_drained(folder: Path) -> Drained:
    """As it was written down; nothing, when that cannot be read: the log then says it again."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Drained)
    except (OSError, msgspec.MsgspecError):
        return Drained()


def write_drained(folder: Path, drained: Drained) -> None:
    """Returns when it is on disk."""
    temporary = folder / f"{_FILE}.tmp"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(drained))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)
