"""Which login a command uses, and where it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pitstop_cli import exits
from pitstop_cli.client import find
from pitstop_cli.commands.login import with_user
from pitstop_cli.commands.token import callout_key
from pitstop_cli.exits import Failure
from pitstop_cli.logins import Login, choose, forget, keep, logins, place_of
from pitstop_cli.main import main


def login(org: str, actor: str = "ada", place: str = "ci.example:4222", id: str = "1") -> Login:
    return Login(
        nats=f"tls://login-{id}:s@{place}", id=f"login-{id}", org=org, actor=actor, expires="2027-01-01T00:00:00.000Z"
    )


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    return {"PITSTOP_CONFIG_DIR": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_a_login_is_kept_for_its_user_alone(here: dict[str, str]) -> None:
    assert logins(here) == []
    file = keep(login("acme"), here)
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    keep(login("acme", id="2"), here)  # again: in place of the first
    keep(login("beta", id="3"), here)
    assert [one.id for one in logins(here)] == ["login-2", "login-3"]
    forget(login("acme", id="2"), here)
    assert [one.org for one in logins(here)] == ["beta"]
    file.write_text("not JSON")
    with pytest.raises(Failure) as caught:
        logins(here)
    assert caught.value.code == exits.AUTH


def test_org_and_actor_come_from_the_login(here: dict[str, str]) -> None:
    keep(login("acme"), here)
    for nats in (None, "nats://ci.example", "tls://ci.example:4222"):
        target = find(nats, None, here)
        assert (target.org, target.actor, target.login) == ("acme", "ada", True)
        assert target.nats.startswith("tls://login-1:s@")
    for org, code in (("rival", exits.AUTH), ("Acme!", exits.USAGE)):
        with pytest.raises(Failure) as caught:
            find(None, org, here)
        assert caught.value.code == code
    with pytest.raises(Failure, match="you are logged in as ada, and PITSTOP_ACTOR says bob"):
        find(None, None, {**here, "PITSTOP_ACTOR": "bob"})
    machine = find("nats://publisher:pw@ci.example:4222", "acme", here)  # a credential of its own
    assert (machine.login, machine.nats) == (False, "nats://publisher:pw@ci.example:4222")


def test_who_is_in_several_orgs_names_one(here: dict[str, str]) -> None:
    keep(login("acme"), here)
    keep(login("beta", "dora", id="2"), here)
    with pytest.raises(Failure) as caught:
        find(None, None, here)
    assert caught.value.code == exits.USAGE
    assert "--org acme   # ada at ci.example:4222" in caught.value.next and "--org beta" in caught.value.next
    assert find(None, "beta", here).actor == "dora"
    assert find(None, None, {**here, "PITSTOP_ORG": "acme"}).actor == "ada"
    keep(login("beta", "dora", "other.example:4222", id="3"), here)
    found = choose("nats://other.example", "", here)
    assert found is not None and found.id == "login-3"


def test_the_owner_of_a_local_system_needs_no_login(here: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "state" / "pitstop"
    folder.mkdir(parents=True)
    kept = {"nats": "nats://owner:pw@127.0.0.1:4222", "org": "local", "actor": "me", "ssh": {}}
    (folder / "client.json").write_text(json.dumps(kept))
    assert (find(None, None, here).actor, find(None, None, here).login) == ("me", False)
    keep(login("acme"), here)
    assert find(None, None, here).actor == "ada"
    assert find(None, None, {**here, "PITSTOP_DIR": str(folder)}).actor == "me"


@pytest.mark.parametrize("url", ["", "nonsense", "nats://", "nats://h:x"])
def test_what_is_no_url_of_a_system(url: str) -> None:
    with pytest.raises(Failure, match="nats://host:port"):
        place_of(url)


def test_a_credential_in_a_url() -> None:
    assert with_user("nats://a.b.token-1.s@h:1", "login-1", "p_-") == "nats://login-1:p_-@h:1"
    assert with_user("tls://h", "login-1", "p") == "tls://login-1:p@h"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nats://h:1"], "give the token once"),
        (["nats://a.b.c.d@h:1", "--token-stdin"], "give the token once"),
        (["nats://abc@h:1"], "this is not a token"),
        (["nats://h:1", "--token-file", "/nowhere/at/all"], "cannot read /nowhere/at/all"),
    ],
)
def test_a_login_that_cannot_be_is_a_usage_error(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["login", *args]) == exits.USAGE
    assert words in capsys.readouterr().err


def test_the_key_of_the_callout_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "callout.key"
    public = callout_key(file)
    assert (file.stat().st_mode & 0o777, callout_key(file), public[0]) == (0o600, public, "A")
