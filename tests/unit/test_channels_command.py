"""What is started for a session channel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.channels import command


def started(text: str, *, path: str = "/usr/bin:/bin") -> tuple[int, str, str]:
    """Run what is made of a command: exit status, stdout, stderr."""
    argv = command.argv("/bin/bash", text, sftp=False)
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": path}, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pwsh(tmp_path: Path) -> str:
    """A PATH with a PowerShell that says what it is asked."""
    program = tmp_path / "pwsh"
    program.write_text('#!/bin/sh\nprintf "<%s>" pwsh "$@"; cat; exit 5\n')
    program.chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


@pytest.mark.parametrize("word", ["pwsh", "powershell", "powershell.exe", "pwsh.exe"])
def test_powershell_by_any_name(pwsh: str, word: str) -> None:
    assert started(f"""{word} -c "Get-Item 'a b'" && true""", path=pwsh) == (5, "<pwsh><-c><Get-Item 'a b'>", "")
    status, out, err = started(f"{word} -c ls")
    assert (status, out) == (127, "")
    assert err == f"pitstop: {word}: this sandbox's image has no PowerShell (pwsh). Its shell is /bin/bash.\n"


@pytest.mark.parametrize("text", ["pwsh-tool", "powershell.exec", "pwshx -c ls", "echo pwsh", "./pwsh", "PWSH=1 true"])
def test_other_words_are_left_alone(text: str) -> None:
    assert command.argv("/bin/bash", text, sftp=False) == ["/bin/bash", "-c", text]


@given(st.text(max_size=20), st.integers(0, 255))
def test_hints_are_for_programs_that_are_not_there(text: str, code: int) -> None:
    assert command.hint(f"no-{text}", code) == ""
    assert command.hint(f"rsync --server {text}", code).startswith("this sandbox's image") == (code == 127)
    assert command.hint(None, code) == command.hint("", code) == command.hint(" ", code) == ""


def test_a_shell_and_the_steering_words() -> None:
    assert command.argv("/bin/sh", None, sftp=False) == ["/bin/sh"]
    assert command.steers(" continue ") and not command.steers("continue now") and not command.steers(None)
