"""How to show a line to somebody whose terminal may belong to a full-screen program. Pure.

vim, less and their like switch to the alternate screen; a line in its middle would stay there until they happen to
draw over it. So there it goes to the bottom row, with the cursor put back, and a little later the program is told
that its window changed, which makes it draw all of its screen again.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

_SWITCH: Final = re.compile(rb"\x1b\[\?(?:1049|1047|47)([hl])")
_LONGEST: Final = 8
"""Bytes of a switch: one may be cut in two by the reads of its output."""


class Recorder(Protocol):
    """Who records a terminal."""

    def output(self, data: bytes) -> None:
        """It shows this."""

    def resized(self, columns: int, rows: int) -> None:
        """Its window has another size."""


class Screen:
    """Watches a terminal's output for switches to the alternate screen and back."""

    def __init__(self) -> None:
        self.alternate = False
        self.recorder: Recorder | None = None
        self._tail = b""

    def shown(self, data: bytes) -> None:
        """What the process wrote."""
        if self.recorder is not None:
            self.recorder.output(data)
        seen = self._tail + data
        if b"\x1b" in seen:
            for switch in _SWITCH.finditer(seen):
                self.alternate = switch[1] == b"h"
        self._tail = seen[-_LONGEST + 1 :]


def warning(text: str, rows: int, *, alternate: bool) -> bytes:
    """A line with a bell, on its own row; in the alternate screen on the bottom row."""
    line = f"[pitstop] {text}".encode()
    if not alternate:
        return b"\r\n\x07\x1b[7m" + line + b"\x1b[0m\r\n"
    return b"\x1b7\x1b[%d;1H\x07\x1b[7m%s\x1b[0m\x1b[K\x1b8" % (rows, line)
