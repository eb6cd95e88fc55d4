"""Errors that reach people: one base, a stable code, a text that says what to do."""

from __future__ import annotations

from typing import ClassVar


class PitstopError(Exception):
    """Base of all. `code` is stable and goes into metrics, JSON output and exit codes; the text is for people."""

    code: ClassVar[str] = "error"


class ConfigError(PitstopError):
    """The environment or a file of settings is wrong. Lists all faults at once."""

    code = "config"


class Unavailable(PitstopError):
    """Something that is needed did not answer in time; trying again later is right."""

    code = "unavailable"


class WrongLastSequence(PitstopError):
    """The server refused a compare-and-set: somebody else wrote first."""

    code = "wrong_last_sequence"


class NotFound(PitstopError):
    """Nothing of that name."""

    code = "not_found"


class Denied(PitstopError):
    """Not allowed. The text names the reason and the next command."""

    code = "denied"
