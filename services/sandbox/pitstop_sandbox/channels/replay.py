"""What a terminal is sent so that it shows a shell as it was left. Pure.

A scrollback holds what programs wrote, and some of that asks the terminal to answer (where is the cursor, which colours
have you). Sent again, the answers would be typed into the shell; so questions are left out.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 256 * 1024
"""Of the scrollback, bytes: a slow line should not wait for a whole mebibyte before the prompt."""

_QUESTIONS: Final = re.compile(
    rb"\x05"
    rb"|\x1b\[[?>=]?[0-9;]*[nc]"  # device status, device attributes
    rb"|\x1b\[[?]?[0-9;]*\$p"  # modes
    rb"|\x1b\[>[0-9;]*q"  # the terminal's name
    rb"|\x1b\[(?:1[13-9]|2[01])(?:;[0-9;]*)?t"  # the window's place and size
    rb"|\x1b\[\?u"  # the keyboard protocol
    rb"|\x1bZ"
    rb"|\x1b\][0-9;]*;\?[^\x07\x1b]*(?:\x07|\x1b\\)"  # colours, clipboard
    rb"|\x1b\]52;[^\x07\x1b]*(?:\x07|\x1b\\)"
    rb"|\x1bP[+$]q[^\x1b]*\x1b\\",
    re.DOTALL,
)
_RESET: Final = b"\x1b[!p\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m"
"""Whatever the terminal was set to before: the main screen, no mouse, the cursor seen, no colour."""
_ALTERNATE: Final = b"\x1b[?1049h\x1b[2J\x1b[H"


def replay(scrollback: bytes, *, alternate: bool) -> bytes:
    """`alternate`: a full-screen program has the screen. It draws it by itself when its window changes, and what it
    drew before would only be in the way."""
    if alternate:
        return _RESET + _ALTERNATE
    kept = scrollback[-MOST:]
    if len(kept) < len(scrollback):
        kept = kept[kept.find(b"\n") + 1 :]
    return _RESET + _QUESTIONS.sub(b"", kept)
