"""How a step's process ended, in words for its log. Pure."""

from __future__ import annotations

import signal
from typing import Final

from pitstop_sandbox.backends.port import Exit, Hit

_BY_SIGNAL: Final = 128
_GIB: Final = 2**30
_HINTS: Final = {
    signal.SIGKILL: "nobody asked Pitstop for that: a lack of memory is the usual reason",
    signal.SIGXFSZ: "a file grew over the sandbox's limit",
    signal.SIGXCPU: "it used more CPU time than it may",
    signal.SIGSYS: "it made a system call that the sandbox does not allow",
    signal.SIGPIPE: "it wrote to a pipe that nobody reads",
}


def words(ended: Exit, *, asked: bool) -> list[str]:
    """Lines for the log; none for an ordinary exit code. `asked`: Pitstop itself sent it a signal."""
    if asked:
        return []
    if ended.hits:
        return [_met(hit, ended) for hit in ended.hits]
    if ended.signal:
        return [f"::error::The step was killed by {name(ended.signal)} ({ended.code}){_hint(ended.signal)}"]
    number = ended.code - _BY_SIGNAL
    if ended.code <= _BY_SIGNAL or name(number) == f"signal {number}":
        return []
    return [f"::error::Exit code {ended.code}: a program of the step was killed by {name(number)}{_hint(number)}"]


def _met(hit: Hit, ended: Exit) -> str:
    level = "::error::" if ended.code else "::warning::"
    if hit.kind == "memory":
        what = "The step was killed" if ended.signal == signal.SIGKILL else "A process of the step was killed"
        return f"{level}{what}: out of memory (limit {_size(hit.limit)})"
    if hit.kind == "processes":
        return f"{level}The limit of {hit.limit} processes was hit: no more of them could be started"
    return f"{level}The disk of the sandbox is full"


def _size(count: int) -> str:
    return f"{count / _GIB:.3g} GiB" if count >= _GIB else f"{count >> 20} MiB"


def name(number: int) -> str:
    """`SIGSEGV` of 11; `signal 99` of what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(number: int) -> str:
    text = _HINTS.get(signal.Signals(number)) if number in signal.valid_signals() else None
    return f"; {text}" if text else ""
