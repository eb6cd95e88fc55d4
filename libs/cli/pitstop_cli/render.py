"""Log chunks as lines for people. Pure: chunks in, lines out; each line of output once, however often it comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pitstop_common.messages import LogChunk

_COMMAND: Final = re.compile(r"\s*::(group|endgroup|error|warning|notice|debug)(?: ([^:]*(?::[^:]+)*))?::(.*)", re.S)
_MARKS: Final = {"error": ("error: ", "31"), "warning": ("warning: ", "33"), "notice": ("notice: ", "36")}


class LogView:
    """Turns the chunks of a run into lines. `keys`: job id -> name; with several jobs each line names its own."""

    def __init__(self, keys: Mapping[str, str], *, colour: bool = False, github: bool = False) -> None:
        self._keys = keys
        self._width = max((len(key) for key in keys.values()), default=0) if len(keys) > 1 else 0
        self._colour, self._github = colour, github
        self._next: dict[tuple[str, int, int, int], int] = {}
        self._heading: dict[str, tuple[int, int, int]] = {}
        self._indent: dict[str, int] = {}

    def feed(self, chunk: LogChunk) -> list[str]:
        """The lines of a chunk that were not shown before, with a heading where another step begins. Summaries are
        read apart (`pitstop logs --summary`)."""
        if chunk.kind == "summary":
            return []
        place = (chunk.job, chunk.attempt, chunk.step, chunk.tries)
        had = self._next.get(place, 0)
        fresh = chunk.lines[max(0, had - chunk.first) :] if chunk.first <= had else chunk.lines
        self._next[place] = max(had, chunk.first + len(chunk.lines))
        if chunk.kind == "notice":
            return [self._line(chunk.job, self._paint("pitstop: " + line, "36")) for line in fresh]
        if not fresh:
            return []
        return [*self._headings(chunk), *self._body(chunk.job, fresh)]

    def _headings(self, chunk: LogChunk) -> Iterator[str]:
        place = (chunk.attempt, chunk.step, chunk.tries)
        if self._heading.get(chunk.job) == place:
            return
        if self._github and chunk.job in self._heading:
            yield "::endgroup::"
        self._heading[chunk.job] = place
        self._indent[chunk.job] = 0
        again = f" (try {chunk.tries})" if chunk.tries > 1 else ""
        title = f"{chunk.step}. {chunk.name}{again}"
        yield f"::group::{title}" if self._github else self._line(chunk.job, self._paint(f"── {title}", "1"))

    def _body(self, job: str, lines: tuple[str, ...]) -> Iterator[str]:
        for line in lines:
            command = None if self._github else _COMMAND.fullmatch(line)
            if command is None:
                yield self._line(job, "  " * self._indent.get(job, 0) + line)
                continue
            kind, properties, data = command[1], command[2] or "", _plain(command[3])
            if kind == "endgroup":
                self._indent[job] = 0
            elif kind == "group":
                self._indent[job] = 0
                yield self._line(job, self._paint("▸ " + " ".join(data.split("\n")), "1"))
                self._indent[job] = 1
            elif kind != "debug":
                word, style = _MARKS[kind]
                first, *more = data.splitlines() or [""]
                yield self._line(job, self._paint(word + _where(properties) + first, style))
                yield from (self._line(job, self._paint(" " * len(word) + line, style)) for line in more)

    def _line(self, job: str, text: str) -> str:
        if not self._width:
            return text
        return f"{self._keys.get(job, job):<{self._width}} | {text}"

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour else text


def summaries(chunks: Iterable[LogChunk]) -> list[LogChunk]:
    """Of each step the summary of its newest try, in the order of jobs and steps."""
    newest: dict[tuple[str, int], LogChunk] = {}
    for chunk in chunks:
        if chunk.kind != "summary":
            continue
        before = newest.get((chunk.job, chunk.step))
        if before is None or (chunk.attempt, chunk.tries) >= (before.attempt, before.tries):
            newest[chunk.job, chunk.step] = chunk
    return [newest[place] for place in sorted(newest, key=lambda place: (len(place[0]), place))]


def _plain(data: str) -> str:
    """The text of a command, in which newlines and percent signs are written as codes."""
    return data.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def _where(properties: str) -> str:
    found = dict(part.split("=", 1) for part in properties.split(",") if "=" in part)
    if "file" not in found:
        return ""
    return ":".join([found["file"], *(found[name] for name in ("line", "col") if name in found)]) + ": "
