"""How a step ended, in words."""

from __future__ import annotations

import pytest

from pitstop_sandbox.backends.port import Exit
from pitstop_sandbox.steps.endings import words


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 128 + 33, 255])
def test_ordinary_codes_need_no_words(code: int) -> None:
    assert words(Exit(code), asked=False) == []


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (Exit(139, 11), "The step was killed by SIGSEGV (139)"),
        (Exit(139), "Exit code 139: a program of the step was killed by SIGSEGV"),
        (Exit(137, 9), "killed by SIGKILL (137); nobody asked Pitstop for that: a lack of memory"),
        (Exit(137), "killed by SIGKILL; nobody asked"),
        (Exit(134), "SIGABRT"),
        (Exit(153), "SIGXFSZ; a file grew over the sandbox's limit"),
    ],
)
def test_signals_are_named(ended: Exit, told: str) -> None:
    (line,) = words(ended, asked=False)
    assert line.startswith("::error::") and told in line
    assert words(ended, asked=True) == []
