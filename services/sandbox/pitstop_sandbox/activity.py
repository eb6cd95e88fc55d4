"""When to say that somebody is active: at once, then at most once an interval, the last time included. Pure.

What counts is a method each: keys, a channel opened, output soon after a key, bytes of files and forwards, CPU of what
people started. Keepalives and changes of a window's size are none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pitstop_common.limits import (
    ACTIVITY_INTERVAL,
    CPU_COUNTS_LEAST,
    CPU_COUNTS_SHARE,
    MOVED_COUNTS,
    MOVED_WITHIN,
    OUTPUT_COUNTS_AFTER_KEY,
)

_REDRAWING: Final = 8.0
"""So long after a warning programs may still draw their screens again (they are told to after 5 s), seconds."""


class Activity:
    """Thins out what happens on all channels of a job. Times are seconds of any one clock."""

    def __init__(self, idle_timeout: float) -> None:
        """`idle_timeout`: the limit of the session; said at least four times as often as that."""
        self.interval = min(ACTIVITY_INTERVAL, idle_timeout / 4)
        self._key = float("-inf")
        self._last = float("-inf")
        self._said = float("-inf")
        self._said_at = float("-inf")
        self._redrawn = float("-inf")
        self._warned = False
        self._moving_since = float("-inf")
        self._moved = 0
        self._used: dict[str, float] = {}
        self._measured = float("-inf")

    def key(self, now: float) -> None:
        """Somebody typed."""
        if self._warned:
            self._warned, self._said_at = False, float("-inf")
        self._key = self._last = now

    def opened(self, now: float) -> None:
        """Somebody asked for a shell or a command. No key: what a command prints for ever keeps nobody in."""
        self._last = now

    def output(self, now: float) -> None:
        """Something was shown. It counts for a while after a key, and not longer."""
        if now - self._key <= OUTPUT_COUNTS_AFTER_KEY and now > self._redrawn:
            self._last = now

    def moved(self, size: int, now: float) -> None:
        """Bytes went through sftp or a forward, either way. What merely keeps a connection awake does not count."""
        if now - self._moving_since > MOVED_WITHIN:
            self._moving_since, self._moved = now, 0
        self._moved += size
        if self._moved > MOVED_COUNTS:
            self._last = now

    def cpu(self, now: float, used: Mapping[str, float]) -> None:
        """What each living process of people has used so far, with all that it started, CPU seconds by its id. To be
        told once an interval. A process that was not there at the last time counts from its start."""
        spent = sum(max(0.0, seconds - self._used.get(id, 0.0)) for id, seconds in used.items())
        window = min(now - self._measured, self.interval)
        self._used, self._measured = dict(used), now
        if spent >= max(CPU_COUNTS_LEAST, CPU_COUNTS_SHARE * window):
            self._last = now

    def warned(self, now: float) -> None:
        """People were told that their session ends: what they did before, and the next key, is news at once. What
        programs then show of themselves is no activity: a warning makes some draw their screen again."""
        self._warned, self._said_at = True, float("-inf")
        self._redrawn = now + _REDRAWING

    def due(self, now: float) -> float | None:
        """In how many seconds there is something to say (0: now); None: nothing new."""
        if self._last <= self._said:
            return None
        return max(0.0, self._said_at + self.interval - now)

    def say(self, now: float) -> float:
        """It is being said now. Returns the time of the last activity."""
        self._said, self._said_at = self._last, now
        return self._last
