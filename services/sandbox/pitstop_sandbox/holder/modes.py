"""Terminal modes of a pty request (RFC 4254 section 8), put on a terminal."""

from __future__ import annotations

import contextlib
import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Final

_CHARACTERS: Final = {
    1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 6: "VEOL", 7: "VEOL2", 8: "VSTART", 9: "VSTOP",
    10: "VSUSP", 12: "VREPRINT", 13: "VWERASE", 14: "VLNEXT", 18: "VDISCARD",
}  # fmt: skip
_INPUT: Final = {
    30: "IGNPAR", 31: "PARMRK", 32: "INPCK", 33: "ISTRIP", 34: "INLCR", 35: "IGNCR", 36: "ICRNL", 38: "IXON",
    39: "IXANY", 40: "IXOFF", 41: "IMAXBEL",
}  # fmt: skip
_LOCAL: Final = {
    50: "ISIG", 51: "ICANON", 53: "ECHO", 54: "ECHOE", 55: "ECHOK", 56: "ECHONL", 57: "NOFLSH", 58: "TOSTOP",
    59: "IEXTEN", 60: "ECHOCTL", 61: "ECHOKE",
}  # fmt: skip
_OUTPUT: Final = {70: "OPOST", 72: "ONLCR", 73: "OCRNL", 74: "ONOCR", 75: "ONLRET"}
_IUTF8_OPCODE: Final = 42
IUTF8: Final = 0o40000
_DISABLED: Final = b"\0"
_new: list[Any] = []


def apply(fd: int, pairs: Iterable[tuple[int, int]]) -> None:
    """Set what is known of the modes (opcode, value); leave the rest as it is. A terminal that is gone is no error."""
    modes = dict(pairs)
    if not modes:
        return
    with contextlib.suppress(termios.error):
        attributes = termios.tcgetattr(fd)
        _change(attributes, modes)
        termios.tcsetattr(fd, termios.TCSANOW, attributes)


def of_new(pairs: Iterable[tuple[int, int]]) -> list[Any]:
    """What a new terminal is set to by these modes."""
    if not _new:
        master, slave = os.openpty()
        _new.extend(termios.tcgetattr(slave))
        _new[0] |= IUTF8
        os.close(master)
        os.close(slave)
    attributes = [*_new[:6], list(_new[6])]
    _change(attributes, dict(pairs))
    return attributes


def _change(attributes: list[Any], modes: dict[int, int]) -> None:
    for table, place in ((_INPUT, 0), (_OUTPUT, 1), (_LOCAL, 3)):
        for opcode, name in table.items():
            if opcode in modes:
                attributes[place] = _flag(attributes[place], getattr(termios, name, 0), modes[opcode])
    if _IUTF8_OPCODE in modes:
        attributes[0] = _flag(attributes[0], IUTF8, modes[_IUTF8_OPCODE])
    for opcode, name in _CHARACTERS.items():
        index = getattr(termios, name, None)
        if opcode in modes and index is not None:
            value = modes[opcode]
            attributes[6][index] = bytes([value]) if value < 255 else _DISABLED


def _flag(flags: int, bit: int, value: int) -> int:
    return flags | bit if value else flags & ~bit
