"""docs/clients.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from pitstop_common.roles import SERVICES
from pitstop_sandbox.channels import environment, gate, pace
from pitstop_sandbox.channels.forwards import MAX_LISTENERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()


def test_every_client_in_the_table_is_tried() -> None:
    tried = (ROOT / "tests" / "acceptance" / "test_clients.py").read_text()
    rows = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")][1:]
    names = ["openssh", "rsync", "git", "putty", "dropbear", "libssh2", "paramiko", "asyncssh", "mosh", "vs code"]
    assert [row.lower().startswith(name) for row, name in zip(rows, names, strict=True)] == [True] * len(rows)
    for name in names[:-1]:
        assert f"async def test_{name}" in tried
    assert (ROOT / "tests" / "integration" / "test_ssh_vscode.py").exists()


def test_the_bounds_are_those_of_the_code() -> None:
    told = (
        f"{gate.MAX_CHANNELS} channels at once, {pace.OPENS_A_SECOND} opened a second ({pace.OPENS_AT_ONCE} at once), "
    )
    assert told + f"{MAX_LISTENERS} listeners" in PAGE


def test_every_switch_is_there() -> None:
    lines = [line.split()[0] for line in PAGE.splitlines() if " = false" in line and line.startswith("    ")]
    assert lines == list(SERVICES)


def test_every_variable_that_is_named_is_taken() -> None:
    named = PAGE.partition("`LANG ")[2].partition("`")[0].replace("LC_*", "LC_ALL").split()
    assert len(named) > 10
    assert set(environment.added(dict.fromkeys(["LANG", *named], "x"), {}, None)) == {"LANG", *named}
