"""Values that must not be read in a log: each line of a value, and its base64.

What is hidden of a value: the value, each of its lines of MIN_MASKED bytes or more, and of both the base64 (plain and
URL-safe): with or without a last newline and its padding, wrapped at 64 or 76, and inside the base64 of a longer text,
at any of the three alignments. Where a value is not found: in another encoding, cut apart, or reversed by the step.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from pitstop_common.limits import MIN_MASKED

STARS: Final = b"***"
_MAX_VALUES: Final = 1000
_WRAPS: Final = (64, 76)
"""Columns of `openssl base64`, and of `base64` and MIME."""
_MIN_PART: Final = 8
"""Of a wrapped line: shorter rests would blot out words."""
_MIN_INSIDE: Final = 6
"""Of a value's base64 inside another's. A value of 5 bytes or more has as much at each alignment."""
_TREE_DEPTH: Final = 3
_HEAD: Final = 3


class Masks:
    """A growing set of values. Applied to raw bytes, before they are cut or decoded."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values: list[str] = []
        self.longest = 0
        """The length in bytes of the longest form; 0 when nothing is masked."""
        self._forms: set[bytes] = set()
        self._compiled: re.Pattern[bytes] | None = None
        self._sorted: list[bytes] | None = None
        self._heads: set[bytes] = set()
        for value in values:
            self.add(value)

    def add(self, value: str) -> bool:
        """Hide this value from now on. False when there are too many already."""
        if not value.strip() or value in self.values:
            return True
        if len(self.values) >= _MAX_VALUES:
            return False
        self.values.append(value)
        found = forms(value)
        self._forms |= found
        self.longest = max(self.longest, *map(len, found)) if found else self.longest
        self._compiled = self._sorted = None
        return True

    def apply(self, data: bytes) -> bytes:
        """The data with every form of every value replaced."""
        return self._pattern().sub(STARS, data) if self._forms else data

    def hide(self, text: str) -> str:
        """`apply`, for a text of the host's own."""
        return self.apply(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def cut(self, data: bytes, wanted: int) -> int:
        """Where to cut `data` near `wanted` so that no value is cut apart. Never 0."""
        if self._forms:
            for found in self._pattern().finditer(data):
                if found.start() < wanted < found.end():
                    return found.start() or found.end()
        back = wanted
        while back > wanted - 4 and data[back] & 0xC0 == 0x80:
            back -= 1
        return back if back > wanted - 4 else wanted

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where the values are."""
        return [found.span() for found in self._pattern().finditer(data)] if self._forms else []

    def open_end(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a value: its rest may come."""
        if not self._forms:
            return 0
        if self._sorted is None:
            self._sorted = sorted(self._forms)
            self._heads = {form[:_HEAD] for form in self._forms}
        for at in range(max(0, len(data) - self.longest + 1), len(data)):
            rest = len(data) - at
            if rest >= _HEAD and data[at : at + _HEAD] not in self._heads:
                continue
            end = data[at:]
            first = bisect_left(self._sorted, end)
            if any(form != end and form.startswith(end) for form in self._sorted[first : first + 2]):
                return rest
        return 0

    def _pattern(self) -> re.Pattern[bytes]:
        if self._compiled is None:
            self._compiled = re.compile(_tree(self._forms, _TREE_DEPTH))
        return self._compiled


def forms(value: str) -> set[bytes]:
    """All byte strings under which a value is hidden."""
    raw = value.encode("utf-8", "surrogateescape")
    lines = [line.strip(b"\r") for line in raw.split(b"\n")]
    found = {raw} if b"\n" not in raw else {line for line in lines if len(line) >= MIN_MASKED}
    for part in {raw, *found}:
        found |= _base64(part)
    return {form for form in found if form.strip()}


def _base64(part: bytes) -> set[bytes]:
    found: set[bytes] = set()
    for whole in (part, part + b"\n"):
        encoded = base64.b64encode(whole)
        found |= {encoded, encoded.rstrip(b"=")}
        for width in _WRAPS:
            if len(encoded) > width:
                wrapped = (encoded[at : at + width] for at in range(0, len(encoded), width))
                found |= {line for line in wrapped if len(line) >= _MIN_PART}
    for before in range(3):
        # What stands before and after shares the first and the last character of the value's own bits.
        bits = base64.b64encode(b"\0" * before + part)
        inside = bits[-(-before * 8 // 6) : (before + len(part)) * 8 // 6]
        if len(inside) >= _MIN_INSIDE:
            found.add(inside)
    return found | {form.translate(_URL_SAFE) for form in found}


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _tree(forms: Iterable[bytes], depth: int) -> bytes:
    """A pattern that finds the longest form at each place. Forms of the same first bytes share a branch: a plain list
    of thousands would be tried one by one at every byte of the log."""
    if depth == 0:
        return b"|".join(re.escape(form) for form in sorted(forms, key=_longest_first))
    branches: dict[bytes, list[bytes]] = {}
    for form in sorted(forms):
        branches.setdefault(form[:1], []).append(form[1:])
    ends = branches.pop(b"", [])
    made = [re.escape(first) + b"(?:" + _tree(rests, depth - 1) + b")" for first, rests in branches.items()]
    return b"|".join(made + [b""] * bool(ends))


def _longest_first(form: bytes) -> tuple[int, bytes]:
    return (-len(form), form)
