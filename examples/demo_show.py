"""What the demo prints: a timeline of events, shells as they are seen, and the checks at the end."""

import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any, Final

_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_INDENT: Final = " " * 12
_WIDTH: Final = 110
_GOOD: Final = {"success"}
_BAD: Final = {"failure", "error", "cancellation", "timeout"}


class DemoError(Exception):
    """Something is not as told. The text says what, and what to do where that is known."""


def styled(text: str, style: str) -> str:
    """In colour on a terminal. NO_COLOR and TERM=dumb are honoured, and CLICOLOR_FORCE."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    if not sys.stdout.isatty() and os.environ.get("CLICOLOR_FORCE", "0") in {"", "0"}:
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever reads this has left: end as if a terminal were closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGHUP)


def result(word: str) -> str:
    """A result, in its colour."""
    return styled(word, "green" if word in _GOOD else "red" if word in _BAD else "bold")


class Show:
    """Prints. Events that come while a command runs in a shell are printed after it, with the time they came."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._held: list[str] | None = None
        self._checks: list[str] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def title(self, text: str) -> None:
        """The head of a part."""
        _print(f"\n{styled(text, 'bold')}")

    def note(self, text: str) -> None:
        """The story teller's own words."""
        _print(_INDENT + styled(text, "dim"))

    def typed(self, command: str) -> None:
        """A command line, as one would type it."""
        together = re.sub(r"(?<= )(-\S+) (?!-)", "\\1\0", command)  # an option and its value
        lines = textwrap.wrap(together, _WIDTH - 16, break_long_words=False, break_on_hyphens=False)
        text = " \\\n    ".join(lines).replace("\0", " ")
        for line in f"$ {text}".splitlines():
            _print(_INDENT + styled(line, "bold"))

    def event(self, request: str, name: str, words: str) -> None:
        """A line of the timeline."""
        line = f"{self.elapsed:7.2f} s   {request:<8}{styled(f'{name:<17}', 'cyan')}{words}"
        if self._held is None:
            _print(line)
        else:
            self._held.append(line)

    def hold(self) -> None:
        """Keep events back for now."""
        self._held = self._held or []

    def release(self) -> None:
        """Print those kept back."""
        for line in self._held or []:
            _print(line)
        self._held = None

    def screen(self, line: str) -> None:
        """A line of a terminal."""
        _print(f"{_INDENT}{styled('|', 'dim')} {line}".rstrip())

    def check(self, holds: bool, told: str, found: str = "") -> None:
        """Something the demo promises. DemoError with what was found instead."""
        self._checks.append(f"  {styled('ok', 'green') if holds else styled('NO', 'red')}  {told}")
        if not holds:
            raise DemoError(f"not as told: {told}" + (f"; found: {found}" if found else ""))

    def checks(self) -> None:
        """All that was checked."""
        if self._checks:
            self.title("Checks")
            _print("\n".join(self._checks))


def words_of(name: str, event: dict[str, Any], since: float) -> str:
    """What an event says, for the timeline. `since`: seconds since its run was asked for."""
    if name == "run.finished":
        reason = f" ({event['reason']})" if event["reason"] else ""
        return f"{result(event['result'])}{reason}, {since:.2f} s after it was asked for"
    return _WORDS[name](event)


def _step(event: dict[str, Any]) -> str:
    report = event["report"]["steps"][event["step"] - 1]
    code = f", exit code {event['exit_code']}" if event["exit_code"] else ""
    return f"step {event['step']} ({event['name']}): {result(event['result'])}{code}, {report['duration']:.2f} s"


def _resumed(event: dict[str, Any]) -> str:
    by = f", by {event['by']}" if event["by"] else ""
    return f"{event['choice']}{by}: the remaining steps go on"


_WORDS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "run.requested": lambda e: f"{e['actor']} asks for a run of {e['org']}/{e['project']}",
    "run.rejected": lambda e: "; ".join(f"{fault['pointer']}: {fault['message']}" for fault in e["errors"]),
    "run.queued": lambda e: f"run {e['run']}, position {e['position']}",
    "run.started": lambda e: f"has the slot, after {e['waited']:.2f} s",
    "sandbox.ready": lambda e: f"made of {e['backend']}",
    "sandbox.failed": lambda e: f"{e['reason']}: {e['message']}",
    "step.started": lambda e: f"step {e['step']} ({e['name']}) again: attempt {e['attempts']}",
    "step.finished": _step,
    "job.paused": lambda e: (
        f"{e['reason'].replace('_', ' ')}, at step {e['step']}; it waits for a person, and keeps its slot"
    ),
    "job.resumed": _resumed,
    "ssh.connected": lambda e: f"{e['user']} is in, with {e['fingerprint'][:20]}…",
    "ssh.denied": lambda e: e["reason"],
    "ssh.closed": lambda e: f"{e['user']} is out ({e['reason']}) after {e['duration']:.2f} s",
    "session.expiring": lambda e: f"{e['reason']} limit reached in {e['left']:.1f} s",
    "session.expired": lambda e: f"{e['reason']}: nobody has used it for its limit",
}
