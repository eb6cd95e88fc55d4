"""Session ids that have logged in already: a proof counts once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_KEPT: Final = 50_000
"""Ids kept over a restart of the host process."""


class Seen:
    """Remembers, over restarts too when it has a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ids: dict[bytes, None] = {}
        if path is not None and path.exists():
            self._load(path)

    def first_time(self, session_id: bytes) -> bool:
        """True once for each id. It is written down before the answer is given."""
        if session_id in self._ids:
            return False
        self._ids[session_id] = None
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(session_id.hex() + "\n")
        return True

    def _load(self, path: Path) -> None:
        lines = path.read_text().splitlines()[-_KEPT:]
        for line in lines:
            try:
                self._ids[bytes.fromhex(line)] = None
            except ValueError:  # cut short by a kill while it was written: that login was never let in
                continue
        fresh = path.with_suffix(".new")
        fresh.write_text("".join(f"{session_id.hex()}\n" for session_id in self._ids))
        fresh.replace(path)
