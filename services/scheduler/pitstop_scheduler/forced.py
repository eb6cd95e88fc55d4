"""A pause that people ask for while the job runs (feature B9). Pure."""

from __future__ import annotations

import msgspec


class Forced(msgspec.Struct, frozen=True, gc=False):
    """`armed`: the job pauses when its step ends, as `by` has asked; `step`: which one, once the host has said so.
    `revision` counts what was asked: what was asked of an earlier one means nothing any more. `users`: all who ever
    asked; since it has paused for one (`open`) they may enter."""

    revision: int = 0
    armed: bool = False
    by: str = ""
    step: int = 0
    users: tuple[str, ...] = ()
    open: bool = False

    def asked(self, by: str, *, on: bool, revision: int) -> Forced:
        """With one more wish."""
        again = on and self.armed
        users = (*self.users, by) if on and by and by not in self.users else self.users
        return Forced(revision, on, self.by if again else by if on else "", self.step if again else 0, users, self.open)

    def anew(self) -> Forced:
        """The attempt was lost: another step will be in progress."""
        return msgspec.structs.replace(self, step=0)


def guests(forced: Forced | None) -> tuple[str, ...]:
    """Who may enter because they had the job paused."""
    return forced.users if forced is not None and forced.open else ()
