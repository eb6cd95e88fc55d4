"""Holds: failures that are to wait for a person, set before they happen (feature A11). Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Hold(msgspec.Struct, frozen=True):
    """The next `left` failures of such jobs wait for `user`, until `until` (seconds since the epoch). Empty `key` or
    `branch`: of any. 0 are left of one that is used up or was removed: it is known on, lest a repeated `hold.set` makes
    it anew."""

    id: str
    project: str
    key: str
    branch: str
    user: str
    by: str
    left: int
    until: float

    def lives(self, now: float) -> bool:
        """Does any failure wait for it."""
        return self.left > 0 and self.until > now


class OnJob(msgspec.Struct, frozen=True, gc=False):
    """The hold that a job was started with. `used`: it has failed and waits, or waited, for `user`."""

    id: str
    user: str
    used: bool = False


def armed(holds: Mapping[str, Hold], project: str, key: str, branch: str, now: float) -> Hold | None:
    """The oldest hold for such a job."""
    for hold in holds.values():
        if hold.lives(now) and (hold.project, hold.key or key, hold.branch or branch) == (project, key, branch):
            return hold
    return None
