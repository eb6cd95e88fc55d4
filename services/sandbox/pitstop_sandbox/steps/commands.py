"""What a step says to the runner: the GITHUB_* files, and `::command::` lines. Pure parsers of hostile text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from pitstop_common.limits import MAX_ENV_VALUE_CHARS, MAX_ENV_VARS
from pitstop_sandbox.events import Exports

_COMMAND: Final = re.compile(r"\s*::([A-Za-z][A-Za-z0-9-]*)(?: [^:]*(?::[^:]+)*)?::(.*)", re.DOTALL)
_PROTECTED: Final = ("GITHUB_", "RUNNER_", "PITSTOP_")
_UNSUPPORTED: Final = {
    "set-output": "write NAME=value to $GITHUB_OUTPUT",
    "save-state": "write NAME=value to a file of your own",
    "set-env": "write NAME=value to $GITHUB_ENV",
    "add-path": "write the folder to $GITHUB_PATH",
}


class Command(msgspec.Struct, frozen=True):
    """A line of the form `::name properties::data`."""

    name: str
    data: str


def command(line: str) -> Command | None:
    """The command in a line of output, if it is one."""
    found = _COMMAND.match(line)
    if found is None:
        return None
    data = found[2].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    return Command(found[1].lower(), data)


def unsupported(name: str) -> str:
    """The warning for a command that is not carried out; empty for all others."""
    instead = _UNSUPPORTED.get(name)
    return f"::warning::`::{name}::` is not carried out: {instead}" if instead else ""


def parse_env(data: bytes) -> tuple[dict[str, str], list[str]]:
    """GITHUB_ENV: `NAME=value`, or `NAME<<END`, lines, `END`. Returns variables and warnings."""
    found: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in pairs(data):
        fault = "no NAME=value and no NAME<<END" if value is None else _fault(name, value)
        if not fault and name not in found and len(found) >= MAX_ENV_VARS:
            fault = f"more than {MAX_ENV_VARS} variables"
        if fault:
            warnings.append(f"GITHUB_ENV: {short(name)}: {fault}; ignored")
        elif value is not None:
            found[name] = value
    return found, warnings


def pairs(data: bytes) -> Iterator[tuple[str, str | None]]:
    """The names and values of such a file, in the order written. None: there is no value, and the name is the line."""
    lines = data.decode("utf-8", "replace").split("\n")
    position = 0
    while position < len(lines):
        line = lines[position].removesuffix("\r")
        position += 1
        if line.strip():
            name, value, position = _pair(line, lines, position)
            yield name if value is not None else name or line, value


def _pair(line: str, lines: list[str], position: int) -> tuple[str, str | None, int]:
    equals, heredoc = line.find("="), line.find("<<")
    if heredoc < 0 or 0 <= equals < heredoc:
        name, sign, value = line.partition("=")
        return name, value if sign else None, position
    name, _, end = line.partition("<<")
    for last in range(position, len(lines)):
        if lines[last].removesuffix("\r") == end:
            return name, "\n".join(lines[position:last]), last + 1
    return f"{name}<<{end} without its end", None, len(lines)


def _fault(name: str, value: str) -> str:
    if not name or "\0" in name or name != name.strip():
        return "not a name"
    if name.upper().startswith(_PROTECTED):
        return "it belongs to the runner"
    if "\0" in value:
        return "a NUL byte in the value"
    if len(value) > MAX_ENV_VALUE_CHARS:
        return f"longer than {MAX_ENV_VALUE_CHARS} characters"
    return ""


def parse_path(data: bytes) -> tuple[tuple[str, ...], list[str]]:
    """GITHUB_PATH: one folder a line. Returns folders in the order written, and warnings."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    wanted = dict.fromkeys(line for line in lines if line)
    good = [line for line in wanted if "\0" not in line and ":" not in line and len(line) < 4096]
    warnings = [f"GITHUB_PATH: {short(line)}: not a folder; ignored" for line in wanted if line not in set(good)]
    if len(good) > MAX_ENV_VARS:
        warnings.append(f"GITHUB_PATH: more than {MAX_ENV_VARS} folders; the rest is ignored")
    return tuple(good[:MAX_ENV_VARS]), warnings


def merge(env: tuple[dict[str, str], list[str]], path: tuple[tuple[str, ...], list[str]]) -> tuple[Exports, list[str]]:
    """Both files as exports, and at most ten warnings of them."""
    return Exports(env=env[0], path=path[0]), at_most_ten(env[1] + path[1])


def at_most_ten(warnings: list[str]) -> list[str]:
    """Of warnings that are alike."""
    more = len(warnings) - 10
    return [*warnings[:10], f"and {more} more warnings like these"] if more > 0 else warnings


def short(text: str) -> str:
    """As it can be shown in a line of a log."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:60])
    return shown + ("…" if len(text) > 60 else "")
