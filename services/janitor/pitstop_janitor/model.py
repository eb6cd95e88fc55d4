"""The janitor's nouns: what it observes, for how long, and what follows from it."""

from __future__ import annotations

from typing import Literal

import msgspec

Mark = tuple[str | int, ...]
"""What an observed thing looked like. The same mark twice means: nothing has happened to it in between."""


class Sighting(msgspec.Struct, frozen=True):
    """A mark, and since when (monotonic seconds) it has been seen without a change."""

    mark: Mark
    since: float


class Observation(msgspec.Struct, frozen=True):
    """Everything in sight at `at`, by key. It is unbroken: no reconnect (`epoch`) and no gap lies inside it."""

    at: float = float("-inf")
    epoch: int = -1
    seen: dict[str, Sighting] = {}


class HeldJob(msgspec.Struct, frozen=True):
    """A job that is not over, and who claimed its newest attempt."""

    org: str
    run: str
    job: str
    attempt: int
    host: str
    incarnation: str
    project: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a host's heartbeat says it holds. `key` is `<job>.<attempt>`."""

    host: str
    incarnation: str
    kind: Literal["attempt", "sandbox", "folder"]
    key: str
    job: str = ""
    attempt: int = 0
    """Of an attempt; a sandbox or folder is in the heartbeat because it belongs to none."""


class Swept(msgspec.Struct, frozen=True):
    """What a pass did: so many seen, so many freed."""

    seen: int = 0
    freed: int = 0
