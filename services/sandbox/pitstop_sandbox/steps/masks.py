"""Values that must not be read in a log: each line of a value, and its base64."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final

STARS: Final = b"***"
_MAX_VALUES: Final = 1000
_MIN_LINE: Final = 3  # shorter lines of a longer value ("{", "}") would blot out the log
_MIN_BASE64: Final = 8


class Masks:
    """A growing set of values. Applied to raw bytes, before they are cut or decoded."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values: list[str] = []
        self._forms: set[bytes] = set()
        self._pattern: re.Pattern[bytes] | None = None
        for value in values:
            self.add(value)

    @property
    def longest(self) -> int:
        """The length in bytes of the longest form; 0 when nothing is masked."""
        return max(map(len, self._forms), default=0)

    def add(self, value: str) -> bool:
        """Hide this value from now on. False when there are too many already."""
        if not value.strip() or value in self.values:
            return True
        if len(self.values) >= _MAX_VALUES:
            return False
        self.values.append(value)
        self._forms |= forms(value)
        self._pattern = re.compile(b"|".join(re.escape(form) for form in sorted(self._forms, key=_longest_first)))
        return True

    def apply(self, data: bytes) -> bytes:
        """The data with every form of every value replaced."""
        return self._pattern.sub(STARS, data) if self._pattern else data

    def cut(self, data: bytes, wanted: int) -> int:
        """Where to cut `data` near `wanted` so that no value is cut apart. Never 0."""
        if self._pattern:
            for found in self._pattern.finditer(data):
                if found.start() < wanted < found.end():
                    return found.start() or found.end()
        back = wanted
        while back > wanted - 4 and data[back] & 0xC0 == 0x80:
            back -= 1
        return back if back > wanted - 4 else wanted


def forms(value: str) -> set[bytes]:
    """All byte strings under which a value is hidden."""
    raw = value.encode("utf-8", "surrogateescape")
    lines = [line.strip(b"\r") for line in raw.split(b"\n")]
    found = {raw} if b"\n" not in raw else {line for line in lines if len(line) >= _MIN_LINE}
    for part in {raw, *found}:
        for whole in (part, part + b"\n"):
            for encoded in (base64.b64encode(whole), base64.urlsafe_b64encode(whole)):
                wrapped = [encoded[at : at + 76] for at in range(0, len(encoded), 76)]
                found |= {form for form in wrapped if len(form) >= _MIN_BASE64} | {encoded.rstrip(b"=")}
    return {form for form in found if form.strip()}


def _longest_first(form: bytes) -> tuple[int, bytes]:
    return (-len(form), form)
