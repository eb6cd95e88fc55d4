"""What people open inside, and which files they ask for over sftp, for the audit: said before it is done, in words that
are safe to keep, and never a flood (the rule is in `tally`)."""

from __future__ import annotations

import asyncio
import shlex
import unicodedata
from collections.abc import Callable
from typing import Final

from pitstop_sandbox.events import Used
from pitstop_sandbox.ports import Session, Use
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.tally import FILES_CHARS, FILES_NAMED, Same, Tally, batched

LONGEST: Final = 300
"""Characters that are kept of a command or place, and of each path."""
_LOOKED_AT: Final = 4096
"""Bytes of it that are looked at."""


class Ledger:
    """Of one job. `say` writes down what its argument tells, `masks` are the values to hide, as they are now."""

    def __init__(self, say: Callable[[Used], None], masks: Callable[[], tuple[str, ...]],
                 clock: Callable[[], float]) -> None:  # fmt: skip
        self._say, self._values, self._clock = say, masks, clock
        self._masks = Masks()
        self._known: tuple[str, ...] = ()
        self._tally = Tally()
        self._files = Tally(FILES_NAMED, FILES_CHARS)
        self._counting = asyncio.Event()

    def used(self, session: Session, use: Use) -> None:
        """When this returns it is written down, or counted."""
        values = self._values()
        if values != self._known:
            self._known, self._masks = values, Masks(values)
        now = self._clock()
        if use.kind == "file":
            self._tell(batched(self._files.due(now)))
            said = self._files.use(session.id, Same(session.user, "file", self._operation(use)), now)
        else:
            said = self._tally.use(session.id, Same(session.user, use.kind, harmless(use.what, self._masks)), now)
        self._tell(said)
        if self._ends is not None:
            self._counting.set()

    def _operation(self, use: Use) -> str:
        """`rename 'a b' to c`. Names that are not shown anyway are not looked at."""
        if self._files.full():
            return ""
        between = " as " if use.what == "link" else " to "
        return f"{use.what} {between.join(shlex.quote(harmless(path, self._masks)) for path in use.paths)}"

    @property
    def _ends(self) -> float | None:
        return min((ends for tally in (self._tally, self._files) if (ends := tally.ends) is not None), default=None)

    async def keep(self) -> None:
        """Says what was counted when it is due, and all of it when this is cancelled."""
        try:
            while True:
                await self._counting.wait()
                await asyncio.sleep(max(0.0, (self._ends or 0.0) - self._clock()))
                now = self._clock()
                self._tell([*self._tally.due(now), *batched(self._files.due(now))])
                if self._ends is None:
                    self._counting.clear()
        finally:
            self.close()

    def close(self) -> None:
        """Say all that was counted: the job ends, or is let go of."""
        self._tell([*self._tally.rest(), *batched(self._files.rest())])

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
