"""What people open inside, for the audit: said before it is opened, in words that are safe to keep, and never a flood.

The rule, for each job: in WINDOW seconds from the first, AT_ONCE uses are said one by one. Those that follow are
counted, the same one of the same person together, and said at the window's end: NAMED different ones by name, the rest
as one number for each person and kind.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from typing import Final, NamedTuple

from pitstop_common.messages import UseKind
from pitstop_sandbox.events import Used
from pitstop_sandbox.ports import Session, Use
from pitstop_sandbox.steps.masks import Masks

WINDOW: Final = 30.0
AT_ONCE: Final = 20
NAMED: Final = 12
LONGEST: Final = 300
"""Characters that are kept of a command or place."""
_LOOKED_AT: Final = 4096
"""Bytes of it that are looked at."""


class _Same(NamedTuple):
    user: str
    kind: UseKind
    what: str


class Tally:
    """The rule. Pure: time is an argument, in seconds."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._said = 0
        self._counted: dict[_Same, tuple[str, int]] = {}

    def use(self, session: str, same: _Same, now: float) -> list[Used]:
        """One more. What is to be said at once: it, behind what an earlier window has left; or nothing yet."""
        before = self.due(now)
        if now >= self._ends:
            self._ends, self._said = now + WINDOW, 0
        if self._said < AT_ONCE and not self._counted:
            self._said += 1
            return [*before, _used(session, same, 1)]
        if same not in self._counted and len(self._counted) >= NAMED:
            same = same._replace(what="")
        first, count = self._counted.get(same, (session, 0))
        self._counted[same] = first, count + 1
        return before

    @property
    def ends(self) -> float | None:
        """When there is something to say; None: nothing waits."""
        return self._ends if self._counted else None

    def due(self, now: float) -> list[Used]:
        """What is to be said, if the window is over."""
        return self.rest() if self._counted and now >= self._ends else []

    def rest(self) -> list[Used]:
        """All that has been counted."""
        counted, self._counted = self._counted, {}
        return [_used(session, same, count) for same, (session, count) in counted.items()]


def _used(session: str, same: _Same, count: int) -> Used:
    return Used(session=session, user=same.user, kind=same.kind, what=same.what, count=count)


class Ledger:
    """Of one job. `say` writes down what its argument tells, `masks` are the values to hide, as they are now."""

    def __init__(self, say: Callable[[Used], None], masks: Callable[[], tuple[str, ...]],
                 clock: Callable[[], float]) -> None:  # fmt: skip
        self._say, self._values, self._clock = say, masks, clock
        self._masks = Masks()
        self._known: tuple[str, ...] = ()
        self._tally = Tally()
        self._counting = asyncio.Event()

    def used(self, session: Session, use: Use) -> None:
        """When this returns it is written down, or counted."""
        values = self._values()
        if values != self._known:
            self._known, self._masks = values, Masks(values)
        same = _Same(session.user, use.kind, harmless(use.what, self._masks))
        self._tell(self._tally.use(session.id, same, self._clock()))
        if self._tally.ends is not None:
            self._counting.set()

    async def keep(self) -> None:
        """Says what was counted when it is due, and all of it when this is cancelled."""
        try:
            while True:
                await self._counting.wait()
                await asyncio.sleep(max(0.0, (self._tally.ends or 0.0) - self._clock()))
                self._tell(self._tally.due(self._clock()))
                if self._tally.ends is None:
                    self._counting.clear()
        finally:
            self.close()

    def close(self) -> None:
        """Say all that was counted: the job ends, or is let go of."""
        self._tell(self._tally.rest())

    def _tell(self, uses: list[Used]) -> None:
        for use in uses:
            self._say(use)


def harmless(text: str, masks: Masks) -> str:
    """What somebody typed, as it may be kept: without the values, on one line, nothing in it that steers a terminal or
    turns the direction of writing, and no longer than LONGEST."""
    data = text[: _LOOKED_AT + masks.longest].encode("utf-8", "replace")
    if len(data) > _LOOKED_AT:
        data = data[: masks.cut(data, _LOOKED_AT)]
    masked = masks.apply(data).decode("utf-8", "replace")
    shown = "".join(" " if char in "\t\r\n" else char if _shows(char) else "�" for char in masked)
    return shown if len(shown) <= LONGEST and len(text) <= _LOOKED_AT else shown[: LONGEST - 1] + "…"


def _shows(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] != "C" and category not in {"Zl", "Zp"}
