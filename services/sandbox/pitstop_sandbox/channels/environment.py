"""What a client may add to the environment of its session. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_ALLOWED: Final = re.compile(
    r"(LANG|LANGUAGE|LC_[A-Z_0-9]+|TERM|COLORTERM|TERM_PROGRAM|TERM_PROGRAM_VERSION|NO_COLOR|FORCE_COLOR"
    r"|CLICOLOR|CLICOLOR_FORCE|COLUMNS|LINES|TZ|EDITOR|VISUAL|PAGER"
    r"|GIT_AUTHOR_(NAME|EMAIL)|GIT_COMMITTER_(NAME|EMAIL))\Z"
)
_TERM: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}\Z")
_MAX_VALUE: Final = 1024
_SIZE: Final = (80, 24)
_MAX_SIZE: Final = 4096


def added(sent: Mapping[str, str], step: Mapping[str, str], terminal: str | None) -> dict[str, str]:
    """The variables a session gets beside those of the step. The step's own win, so that a command gives here what it
    gave in the step; only TERM follows the client's `terminal` (None: no pty)."""
    kept = {
        name: value
        for name, value in sent.items()
        if may_send(name) and name not in step and len(value) <= _MAX_VALUE and "\0" not in value
    }
    if terminal is not None:
        kept["TERM"] = terminal if _TERM.match(terminal) else "dumb"
    return kept


def may_send(name: str) -> bool:
    """Is it one that a client's settings may bring."""
    return _ALLOWED.match(name) is not None


def size(columns: int, rows: int) -> tuple[int, int]:
    """A terminal's size as it is taken. A client without a terminal of its own says 0."""
    return min(columns, _MAX_SIZE) or _SIZE[0], min(rows, _MAX_SIZE) or _SIZE[1]
