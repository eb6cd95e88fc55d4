"""Recordings as files: asciicast v2, one JSON value a line. Pure: pieces in, lines out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pitstop_cli.console import plain
from pitstop_cli.tables import columns
from pitstop_cli.words import clock, span


def asciicast(chunks: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of a file that `asciinema play` and `asciinema cat` take. Pieces that came twice count once."""
    expected = 0
    for chunk in sorted(chunks, key=lambda chunk: int(chunk["index"])):
        if not expected:
            yield _header(chunk)
        if chunk["index"] < expected:
            continue
        if chunk["index"] > expected:
            at = chunk["events"][0][0] if chunk["events"] else chunk["seconds"]
            yield json.dumps([at, "o", "\r\n[pitstop] a part is not kept any more\r\n"])
        expected = chunk["index"] + 1
        yield from (json.dumps(event, ensure_ascii=False) for event in chunk["events"])


def _header(chunk: dict[str, Any]) -> str:
    title = plain(chunk["title"]) or "shell"
    head = {"version": 2, "width": chunk["columns"] or 80, "height": chunk["rows"] or 24,
            "timestamp": int(chunk["started"]), "title": f"{plain(chunk['user'])} in {chunk['job']}: {title}",
            "env": {"TERM": "xterm-256color"}}  # fmt: skip
    return json.dumps(head, ensure_ascii=False)


def recording_lines(recordings: Iterable[dict[str, Any]], now: float, seconds: Any) -> list[str]:
    """A table. `seconds`: of an RFC 3339 time."""
    heads = ("RECORDING", "JOB", "WHO", "SINCE", "LENGTH", "SIZE", "WHAT")
    return columns(heads, [_row(one, now, seconds) for one in recordings])


def _row(one: dict[str, Any], now: float, seconds: Any) -> tuple[str, ...]:
    size = f"{one['size'] / 1024:.0f} KiB" if one["size"] >= 1024 else f"{one['size']} B"
    notes = [word for word, holds in (("goes on", not one["ended"]), ("cut", one["cut"])) if holds]
    what = (plain(one["title"]) or "a shell") + (f" ({', '.join(notes)})" if notes else "")
    return (one["recording"], one["job"], plain(one["user"]), clock(seconds(one["started"]), now),
            span(one["seconds"]), size, what)  # fmt: skip
