"""Somebody who is not the owner: a token, a login, a run, a shell without a key, and the end of it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.cli_system import Home, up

WORKFLOW = """
jobs:
  build:
    steps:
      - run: echo one
      - run: echo two
"""


@pytest.fixture
def system(tmp_path: Path) -> Iterator[tuple[Home, str]]:
    """The owner's home, and where the system is."""
    (tmp_path / "owner").mkdir()
    owner = Home(tmp_path / "owner")
    with up(owner) as running:
        parts = urlsplit(running.facts["nats"])
        yield owner, f"nats://{parts.hostname}:{parts.port}"


def person(folder: Path) -> Home:
    """A user of another machine: no folder of the system, no keys."""
    folder.mkdir()
    made = Home(folder)
    for name in ("PITSTOP_DIR", "PITSTOP_ACTOR"):
        made.env.pop(name)
    made.env |= {"PITSTOP_CONFIG_DIR": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    return made


def test_from_a_token_to_a_shell_and_out_again(system: tuple[Home, str], tmp_path: Path) -> None:
    owner, url = system
    bob = person(tmp_path / "bob")
    told = bob.run("ls")
    assert (told.returncode, "pitstop login" in told.stderr) == (4, True)
    made = owner.run("token", "create", "--user", "bob")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    done = bob.run("login", url, "--token-stdin", stdin=token + "\n")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "bob" / "config" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and token not in kept.read_text()
    again = bob.run("login", url, "--token-stdin", stdin=token + "\n")
    assert (again.returncode, "used already" in again.stderr) == (4, True)

    bob.checkout(WORKFLOW)
    bob.git("clone", "-q", "--bare", str(bob.repo), str(tmp_path / "origin"))
    bob.git("remote", "add", "origin", str(tmp_path / "origin"))
    refused = bob.run("run", "--ssh-at-end", "--no-wait", "--ssh-key", str(tmp_path / "none.pub"))
    assert refused.returncode == 2
    with bob.start("run", "--ssh-at-end") as running:
        command = running.line()  # off a terminal: the ssh command, when it waits at the end
        assert command.startswith("ssh ") and "pitstop-key-" in command
        (run,) = [one["run"] for one in bob.json("ls")["runs"]]
        assert bob.json("status", run)["run"]["actor"] == "bob"
        inside = bob.run("exec", run, "--", "echo here; id -un")
        assert (inside.returncode, inside.stdout.splitlines()[0]) == (0, "here"), inside.stderr
        assert "using one for this visit only" in inside.stderr
        assert bob.json("keys", "ls")["keys"] == []
        log = bob.run("logs", run).stdout.splitlines()
        assert [line for line in log if line in {"one", "two"}] == ["one", "two"]
        denied = bob.run("apply", "-f", "-", stdin='org = "local"\nslots = 1\n')
        assert (denied.returncode, "needs the role admin" in denied.stderr) == (4, True)

        _give(owner, "read")  # from now on bob may look, and no more
        assert bob.run("logs", run).returncode == 0
        low = bob.run("exec", run, "--", "true")
        assert (low.returncode, "needs the role write, and bob has read" in low.stderr) == (4, True)
        stopped = bob.run("cancel", run)
        assert (stopped.returncode, "needs the role write" in stopped.stderr) == (4, True)
        assert owner.run("cancel", run).returncode == 0
        assert running.end()[0] == 6
    _give(owner, "write")
    passes = {one["user"]: one["id"] for one in owner.json("token", "ls")["passes"]}
    assert owner.run("token", "revoke", passes["bob"]).returncode == 0
    over = bob.run("ls")
    assert (over.returncode, "refuses the credential" in over.stderr) == (4, True)
    assert token.split(".")[3] not in "".join(
        file.read_text(errors="replace") for file in (owner.dir / "logs").glob("*.log")
    )


def test_a_login_ends_with_logout(system: tuple[Home, str], tmp_path: Path) -> None:
    owner, url = system
    carl = person(tmp_path / "carl")
    token = json.loads(owner.run("token", "create", "--user", "carl", "--role", "read", "-o", "json").stdout)["token"]
    file = tmp_path / "token"
    file.write_text(token)
    assert carl.json("login", url, "--token-file", str(file))["role"] == "read"
    assert carl.run("ls").returncode == 0
    assert [one["user"] for one in owner.json("token", "ls")["passes"]] == ["carl"]
    assert carl.run("logout").returncode == 0
    assert owner.json("token", "ls")["passes"] == []
    assert carl.run("logout").returncode == 4


def _give(owner: Home, role: str) -> None:
    text = f'org = "local"\n[roles]\nada = "admin"\nbob = "{role}"\n'
    done = owner.run("apply", "-f", "-", stdin=text)
    assert done.returncode == 0, done.stderr
