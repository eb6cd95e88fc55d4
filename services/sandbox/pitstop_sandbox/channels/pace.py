"""How fast things may be opened. Pure: time is an argument, seconds of any one clock."""

from __future__ import annotations

from typing import Final

OPENS_A_SECOND: Final = 50
"""Channels opened, and listeners asked for, over a longer time."""
OPENS_AT_ONCE: Final = 128
"""The same, before that limit is felt."""


class Pace:
    """A bucket of OPENS_AT_ONCE that fills by OPENS_A_SECOND."""

    def __init__(self) -> None:
        self._left = float(OPENS_AT_ONCE)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one; false when there is none."""
        if self.wait(now) > 0:
            return False
        self._left -= 1
        return True

    def wait(self, now: float) -> float:
        """Seconds until there is one to take."""
        self._left = min(float(OPENS_AT_ONCE), self._left + (now - self._at) * OPENS_A_SECOND)
        self._at = now
        return max(0.0, (1 - self._left) / OPENS_A_SECOND)
