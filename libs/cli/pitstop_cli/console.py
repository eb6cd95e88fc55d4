"""What a command prints: data to stdout, progress to stderr, colours only where they are welcome."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, Final, TextIO

_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_RESETS: Final = ("\x1b[0m", "\x1b[m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def interactive() -> bool:
    """A person sits at both ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def colourful(stream: TextIO) -> bool:
    """NO_COLOR and TERM=dumb are honoured; off a terminal there is no colour unless CLICOLOR_FORCE asks for it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() or os.environ.get("CLICOLOR_FORCE", "0") not in {"", "0"}


def styled(text: str, style: str, stream: TextIO) -> str:
    """`text` in a style of `_STYLES`, where `stream` shows it."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colourful(stream) else text


def say(text: str = "", style: str = "") -> None:
    """Progress, for people."""
    print(styled(text, style, sys.stderr) if style else text, file=sys.stderr, flush=True)


def out(text: str) -> None:
    """Data, for people or programs."""
    print(text, flush=True)


def out_json(value: Any) -> None:
    """Data as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")), flush=True)


def plain(text: str) -> str:
    """A stranger's text (a step's name, a reason) on one line, unable to steer a terminal."""
    return _CONTROL.sub("?", text.replace("\n", " "))


def harmless(text: str) -> str:
    """A line of output with its colours, and nothing else that a terminal would obey."""
    kept = _SGR.findall(text)
    if not kept:
        return _CONTROL.sub("", text)
    parts = [_CONTROL.sub("", part) for part in _SGR.split(text)]
    shown = "".join(part + colour for part, colour in zip(parts, [*kept, ""], strict=True))
    return shown if kept[-1] in _RESETS else shown + _RESETS[0]
