"""Exit codes, and the one exception that ends a command."""

from __future__ import annotations

from typing import Final

OK: Final = 0
RUN_FAILED: Final = 1
USAGE: Final = 2
SYSTEM: Final = 3
"""Pitstop's own trouble: a run that ended `error`, no answer, no connection."""
AUTH: Final = 4
NOT_FOUND: Final = 5
CANCELLED: Final = 6
TIMEOUT: Final = 124
INTERRUPTED: Final = 130
TRANSPORT: Final = 255

_OF_RESULT: Final = {
    "success": OK,
    "skip": OK,
    "failure": RUN_FAILED,
    "error": SYSTEM,
    "cancellation": CANCELLED,
    "timeout": TIMEOUT,
}


def of_result(result: str) -> int:
    """The exit code of a run that ended with `result`."""
    return _OF_RESULT.get(result, SYSTEM)


class Failure(Exception):
    """A command cannot go on: what failed and why, the next thing to do, and the exit code."""

    def __init__(self, what: str, *, next: str = "", code: int = SYSTEM) -> None:
        super().__init__(what)
        self.what = what
        self.next = next
        self.code = code
