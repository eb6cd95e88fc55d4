"""What `pitstop audit` shows. Pure: entries in, lines out. Times are shown in the reader's own time zone."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from pitstop_cli.console import plain
from pitstop_cli.tables import columns
from pitstop_cli.words import span

_HEADS: Final = ("WHEN", "JOB", "WHO", "FROM", "KEY", "WHAT")
_USES: Final = {
    "shell": "a shell",
    "exec": "ran",
    "sftp": "sftp",
    "file": "sftp",
    "recording": "the terminal is recorded",
    "dial": "connected inside to",
    "listen": "listens inside on",
    "agent": "forwarded their agent",
}
_NAMED: Final = ("exec", "file", "dial", "listen", "recording")


def joined(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same entries; what was done in a connection has its client and key."""
    logins: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["type"] == "ssh.connected":
            logins[entry["session"]] = {"client": entry["client"], "fingerprint": entry["fingerprint"]}
        yield {**entry, **logins.get(entry["session"], {})} if entry["session"] else entry


def audit_lines(entries: Iterable[dict[str, Any]]) -> list[str]:
    """A table: when, which job, who, from where, with which key, what."""
    return columns(_HEADS, [_row(one) for entry in entries for one in _apart(entry)])


def _apart(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each operation on files that came with others."""
    named = entry.get("named") or ()
    yield from ({**entry, "what": what, "count": 1} for what in named)
    if not named:
        yield entry


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
    words = _WHAT.get(entry["type"])
    return words(entry) if words else str(entry["type"])


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


_WHAT: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "run.accepted": lambda entry: "asked for the run",
    "run.cancel": lambda entry: f"cancelled{_because(entry)}",
    "run.extend": lambda entry: f"asked to keep the session for {span(entry['seconds'])}",
    "run.pause": lambda entry: "took the pause back" if entry["what"] else "asked for a pause at the end of the step",
    "job.pausing": lambda entry: f"the job is to pause when step {entry['step']} ends",
    "step.started": lambda entry: f"retry of step {entry['step']}",
    "job.resumed": lambda entry: f"{entry['what']} at step {entry['step']}" if entry["step"] else entry["what"],
    "job.finished": lambda entry: f"the job ended: {entry['what']}{_because(entry)}",
    "session.expired": lambda entry: f"a deadline of the session passed{_because(entry)}",
    "ssh.connected": lambda entry: f"entered by {entry['what']}" if entry["what"] else "entered",
    "ssh.closed": lambda entry: f"left{_because(entry)}, after {span(entry['seconds'])}",
    "ssh.denied": lambda entry: f"was refused{_because(entry)}",
    "ssh.used": _use,
}
