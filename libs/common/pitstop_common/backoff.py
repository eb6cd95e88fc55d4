"""How long to wait before a process that died is started again. Pure: lives are told, in seconds."""

from __future__ import annotations

from typing import Final

_FIRST_DELAY: Final = 0.2
_LAST_DELAY: Final = 5.0
_STEADY_AFTER: Final = 30.0
"""Seconds of life after which the next death starts the back-off anew."""


class Backoff:
    """Of one process: each short life doubles the wait."""

    def __init__(self) -> None:
        self._delay = _FIRST_DELAY

    def after(self, lived: float) -> float:
        """The wait after a life of that length."""
        if lived >= _STEADY_AFTER:
            self._delay = _FIRST_DELAY
        delay, self._delay = self._delay, min(self._delay * 2, _LAST_DELAY)
        return delay
