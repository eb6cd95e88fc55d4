"""How much the audit says: a rule for each kind of thing that many can come of in a time. Pure.

In WINDOW seconds from the first, AT_ONCE uses are said one by one. Those that follow are counted, the same one of the
same person together, and said at the window's end: some by name, the rest as one number for each person and kind.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pitstop_common.messages import UseKind
from pitstop_sandbox.events import Used

WINDOW: Final = 30.0
"""Seconds."""
AT_ONCE: Final = 20
NAMED: Final = 12
"""Different ones that a window's end names."""
FILES_NAMED: Final = 200
FILES_CHARS: Final = 8192
"""Operations on files that a window's end names, and how many characters of them in all: they are said in one event."""


class Same(NamedTuple):
    """What counts as the same."""

    user: str
    kind: UseKind
    what: str


class Tally:
    """The rule. Time is an argument, in seconds."""

    def __init__(self, named: int = NAMED, chars: int = 1 << 31) -> None:
        """`named` different ones are kept apart, of `chars` characters in all."""
        self._named, self._chars = named, chars
        self._ends = 0.0
        self._said = 0
        self._length = 0
        self._counted: dict[Same, tuple[str, int]] = {}

    def use(self, session: str, same: Same, now: float) -> list[Used]:
        """One more. What is to be said at once: it, behind what an earlier window has left; or nothing yet."""
        before = self.due(now)
        if now >= self._ends:
            self._ends, self._said = now + WINDOW, 0
        if self._said < AT_ONCE and not self._counted:
            self._said += 1
            return [*before, _used(session, same, 1)]
        if same not in self._counted and self.full(len(same.what)):
            same = same._replace(what="")
        elif same not in self._counted:
            self._length += len(same.what)
        first, count = self._counted.get(same, (session, 0))
        self._counted[same] = first, count + 1
        return before

    def full(self, chars: int = 1) -> bool:
        """No more names have room in this window."""
        return len(self._counted) >= self._named or self._length + chars > self._chars

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
        self._length = 0
        return [_used(session, same, count) for same, (session, count) in counted.items()]


def _used(session: str, same: Same, count: int) -> Used:
    return Used(session=session, user=same.user, kind=same.kind, what=same.what, count=count)


def batched(uses: list[Used]) -> list[Used]:
    """Operations on files, with one event for all of a person that have names."""
    found: dict[str, Used] = {}
    for use in uses:
        if use.what:
            before = found.get(use.user)
            named = f"{use.what} ({use.count} times)" if use.count > 1 else use.what
            found[use.user] = Used(
                session=before.session if before else use.session, user=use.user, kind=use.kind,
                count=use.count + (before.count if before else 0), named=(*(before.named if before else ()), named),
            )  # fmt: skip
    return [*found.values(), *(use for use in uses if not use.what)]
