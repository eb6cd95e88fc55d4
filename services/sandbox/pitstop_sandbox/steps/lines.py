"""Raw output into log lines: cut, masked, decoded, commands obeyed. Pure, and the same however the bytes arrive."""

from __future__ import annotations

from collections import deque
from typing import Final

from pitstop_common.limits import MAX_LINE_SHOWN, MAX_LOG_LINE
from pitstop_sandbox.steps import commands
from pitstop_sandbox.steps.masks import Masks

TAIL: Final = 15
_TAIL_CHARS: Final = 300
_UTF8: Final = 4  # bytes of the longest character


class Lines:
    """The output of one try of a step. Line numbers follow from the raw bytes alone, so that a reader who starts
    again from the first byte counts the same."""

    def __init__(self, masks: Masks) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._masks = masks
        self._rest = bytearray()
        self._inside = False
        self._hidden = False
        self._long = 0
        """Bytes of the line so far that came in parts."""
        self._token = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are whole now."""
        out: list[str] = []
        head, newline, rest = data.rpartition(b"\n")
        if newline:
            for line in (bytes(self._rest) + head).split(b"\n"):
                self._take(line, out)
            self._rest.clear()
        self._rest += rest
        while len(self._rest) > self._window():
            self._part(out)
        self.tail.extend(line[:_TAIL_CHARS] for line in out[-TAIL:])
        return out

    def finish(self) -> list[str]:
        """What is left when the output has ended without a newline."""
        out: list[str] = []
        if self._rest:
            rest, self._rest = bytes(self._rest), bytearray()
            self._take(rest, out)
        self.tail.extend(line[:_TAIL_CHARS] for line in out[-TAIL:])
        return out

    def _window(self) -> int:
        return MAX_LOG_LINE + self._masks.longest + _UTF8

    def _part(self, out: list[str]) -> None:
        at = self._masks.cut(bytes(self._rest[: self._window()]), MAX_LOG_LINE)
        part = bytes(self._rest[:at])
        del self._rest[:at]
        self._emit(part, out)
        self._inside = True
        self._long += at

    def _take(self, line: bytes, out: list[str]) -> None:
        while len(line) > MAX_LOG_LINE:
            at = self._masks.cut(line[: self._window()], MAX_LOG_LINE)
            self._emit(line[:at], out)
            self._inside = True
            self._long += at
            line = line[at:]
        self._emit(line, out)
        if self._long >= MAX_LINE_SHOWN and not self._hidden:
            whole = self._long + len(line)
            out.append(f"[pitstop: this line is {whole} bytes long; what follows {MAX_LINE_SHOWN} is not shown]")
        self._inside = self._hidden = False
        self._long = 0

    def _emit(self, part: bytes, out: list[str]) -> None:
        if self._hidden or self._long >= MAX_LINE_SHOWN:
            return
        text = self._obey(part) if b"::" in part and not self._inside else self._show(part)
        if text is not None:
            out.append(text)

    def _show(self, part: bytes) -> str:
        part = self._masks.apply(part)
        if b"\r" in part:
            part = _as_a_terminal_ends_up(part)
        return part.decode("utf-8", "replace")

    def _obey(self, part: bytes) -> str | None:
        found = commands.command(part.decode("utf-8", "replace").rstrip("\r"))
        if found is None:
            return self._show(part)
        if self._token:
            if found.name == self._token.lower():
                self._token = ""
            return self._show(part)
        if found.name == "stop-commands":
            self._token = found.data.strip()
        elif found.name == "add-mask":
            self._hidden = True
            return None if self._masks.add(found.data) else "::warning::too many values to mask; this one is not"
        return commands.unsupported(found.name) or self._show(part)


def _as_a_terminal_ends_up(part: bytes) -> bytes:
    pieces = [piece for piece in part.split(b"\r") if piece]
    return pieces[-1] if pieces else b""
