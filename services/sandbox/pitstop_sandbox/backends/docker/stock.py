"""What a host keeps ready: how many started containers of which image, and what is to be done about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

DEFAULT: Final = ""
"""Stands for the image of jobs that name none."""
MOST: Final = 1000
AGE: Final = 3600.0
PER_MINUTE: Final = 60.0

T = TypeVar("T")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """`images`: how many of each, by the name a job gives it, DEFAULT for none. `age`: seconds after which one is
    replaced; `per_minute`: made, at most."""

    images: Mapping[str, int]
    age: float = AGE
    per_minute: float = PER_MINUTE


NOTHING: Final = Wanted(images={})


class Ready(msgspec.Struct, frozen=True):
    """One that is ready. `image`: as in `Wanted.images`; `since`: seconds of a clock that only goes forward."""

    image: str
    since: float


def parse(words: Iterable[str]) -> dict[str, int]:
    """`IMAGE=N`, or `N` for the default image. Raises ValueError that names the word."""
    found: dict[str, int] = {}
    for word in words:
        name, _, count = word.rpartition("=")
        if not count.isascii() or not count.isdigit() or int(count) > MOST or ("=" in word and not name):
            raise ValueError(f"{word!r} should be IMAGE=N, or N for the default image; N from 0 to {MOST}")
        found[name] = int(count)
    return found


def stale(wanted: Wanted, ready: Sequence[tuple[T, Ready]], now: float) -> list[T]:
    """Those to be ended: too old, or more than are wanted, the oldest first."""
    out = [which for which, one in ready if now - one.since >= wanted.age]
    for name in {one.image for _, one in ready}:
        young = sorted((one.since, number) for number, (which, one) in enumerate(ready)
                       if one.image == name and which not in out)  # fmt: skip
        out += [ready[number][0] for _, number in young[: max(0, len(young) - wanted.images.get(name, 0))]]
    return out


def missing(wanted: Wanted, ready: Iterable[Ready], not_now: Iterable[str]) -> str | None:
    """The image of which one is to be made next: the one that lacks the most of what is wanted; None: none is.
    `not_now`: images of which none can be made now."""
    have = [one.image for one in ready]
    skipped = set(not_now)
    lacks = {
        name: 1 - have.count(name) / count for name, count in wanted.images.items() if count and name not in skipped
    }
    name = max(lacks, key=lambda each: (lacks[each], each), default=None)
    return None if name is None or lacks[name] <= 0 else name


def next_look(wanted: Wanted, ready: Iterable[Ready], now: float, most: float) -> float:
    """Seconds until one of these is too old, at most `most`."""
    return max(0.0, min([most, *(one.since + wanted.age - now for one in ready)]))
