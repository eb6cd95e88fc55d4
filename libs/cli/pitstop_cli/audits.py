"""What `pitstop audit` shows. Pure: entries in, lines out. Times are shown in the reader's own time zone."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pitstop_cli.console import plain
from pitstop_cli.tables import columns
from pitstop_cli.words import span

_HEADS: Final = ("WHEN", "JOB", "WHO", "FROM", "KEY", "WHAT")
_USES: Final = {
    "shell": "a shell",
    "exec": "ran",
    "sftp": "sftp",
    "dial": "connected inside to",
    "listen": "listens inside on",
    "agent": "forwarded their agent",
}
_NAMED: Final = ("exec", "dial", "listen")


def joined(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same entries; what was done in a connection has its client and key."""
    logins: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["type"] == "ssh.connected":
            logins[entry["session"]] = {"client": entry["client"], "fingerprint": entry["fingerprint"]}
        yield {**entry, **logins.get(entry["session"], {})} if entry["session"] else entry


def audit_lines(entries: Iterable[dict[str, Any]]) -> list[str]:
    """A table: when, which job, who, from where, with which key, what."""
    return columns(_HEADS, [_row(entry) for entry in entries])


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        _when(entry["time"]), *(plain(entry[name]) or "-" for name in ("job", "user", "client", "fingerprint")),
        plain(_what(entry)),
    )  # fmt: skip


def _when(time: str) -> str:
    try:
        return f"{datetime.datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return plain(time)


def _what(entry: dict[str, Any]) -> str:
    match entry["type"]:
        case "run.accepted":
            return "asked for the run"
        case "run.cancel":
            return f"cancelled{_because(entry)}"
        case "run.extend":
            return f"asked to keep the session for {span(entry['seconds'])}"
        case "step.started":
            return f"retry of step {entry['step']}"
        case "job.resumed":
            return f"{entry['what']} at step {entry['step']}" if entry["step"] else entry["what"]
        case "job.finished":
            return f"the job ended: {entry['what']}{_because(entry)}"
        case "session.expired":
            return f"a deadline of the session passed{_because(entry)}"
        case "ssh.connected":
            return "entered"
        case "ssh.closed":
            return f"left{_because(entry)}, after {span(entry['seconds'])}"
        case "ssh.denied":
            return f"was refused{_because(entry)}"
        case "ssh.used":
            return _use(entry)
        case other:
            return str(other)


def _because(entry: dict[str, Any]) -> str:
    return f": {entry['reason']}" if entry["reason"] else ""


def _use(entry: dict[str, Any]) -> str:
    kind, count = entry["kind"], entry["count"]
    words = _USES.get(kind, kind)
    if kind not in _NAMED:
        return f"{words} ({count} times)" if count > 1 else words
    if not entry["what"]:
        return f"{words} {count} more, too many different ones at a time to name"
    return f"{words}: {entry['what']}" + (f" ({count} times)" if count > 1 else "")
