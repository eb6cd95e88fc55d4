"""What a shell has made of the step's environment (`pitstop-step env`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pitstop_sandbox.channels.environment import may_send

_OF_THE_SHELL: Final = frozenset({"PITSTOP_SESSION", "TERM", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES"})
"""Every shell has its own of these: no difference to the step."""


def parsed(environ: bytes) -> dict[str, str]:
    """/proc/PID/environ as variables. What is not text is shown with the replacement character."""
    pairs = (entry.decode("utf-8", "replace").partition("=") for entry in environ.split(b"\0"))
    return {name: value for name, sign, value in pairs if name and sign}


def changed(step: Mapping[str, str], shell: Mapping[str, str]) -> list[str]:
    """One line a variable: `+NAME=value` only in the shell, `-NAME=value` only in the step; both when it differs.
    Empty for a shell that has just begun."""
    lines = []
    for name in sorted(step.keys() | shell.keys()):
        old, new = step.get(name), shell.get(name)
        if old == new or name in _OF_THE_SHELL or (old is None and may_send(name)):
            continue
        lines += [f"-{name}={_shown(old)}"] if old is not None else []
        lines += [f"+{name}={_shown(new)}"] if new is not None else []
    return lines


def _shown(value: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in value)
