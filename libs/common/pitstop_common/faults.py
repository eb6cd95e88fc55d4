"""Everything wrong with a text or a request, collected: each fault with its place, none hiding another."""

from __future__ import annotations

from collections.abc import Iterable

from pitstop_common.limits import MAX_FAULTS
from pitstop_common.messages import Fault

Path = tuple[str | int, ...]

_SHOWN_CHARS = 60


class TooManyFaults(Exception):
    """The collector is full: whoever made it stops reading there. `found` says that there may be more."""


class Faults:
    """A growing list of faults, bounded: a hostile text must cost neither time nor space without end."""

    def __init__(self, limit: int = MAX_FAULTS) -> None:
        self._found: list[Fault] = []
        self._limit = limit

    def add(self, path: Path, message: str, line: int = 0, column: int = 0) -> None:
        """Note one. Raises TooManyFaults after the last one that fits."""
        self._found.append(Fault(pointer=pointer(path), message=message, line=line, column=column))
        if len(self._found) >= self._limit:
            raise TooManyFaults

    def at(self, path: Path) -> bool:
        """Is something noted of exactly this place."""
        wanted = pointer(path)
        return any(fault.pointer == wanted for fault in self._found)

    @property
    def found(self) -> tuple[Fault, ...]:
        """All so far: those without a line first, the others in the order of the text."""
        found = sorted(self._found, key=lambda fault: (fault.line, fault.column))
        if len(found) >= self._limit:
            found.append(Fault(pointer="", message=f"reading stopped after {self._limit} faults; there may be more"))
        return tuple(found)

    def __bool__(self) -> bool:
        return bool(self._found)


def pointer(path: Path) -> str:
    """An RFC 6901 JSON pointer: `("env", "A/B")` -> `/env/A~1B`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shown(text: str) -> str:
    """A text of a stranger, safe to repeat in a message: quoted, printable, short."""
    return repr(text) if len(text) <= _SHOWN_CHARS else repr(text[:_SHOWN_CHARS]) + "…"


def told(faults: Iterable[Fault]) -> str:
    """Faults for people, one a line: `12:7 /workflow/jobs/build/steps/2/if: …`."""
    return "\n".join(
        (f"{fault.line}:{fault.column} " if fault.line else "") + f"{fault.pointer or '/'}: {fault.message}"
        for fault in faults
    )
