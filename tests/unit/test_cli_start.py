"""The command starts quickly, and finds the system where it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pitstop_cli import VERSION, exits
from pitstop_cli.client import find
from pitstop_cli.exits import Failure
from pitstop_cli.main import main
from pitstop_common.telemetry import VERSION as SERVICES_VERSION

HEAVY = ("nats", "asyncssh", "aiodocker", "prometheus_client", "cryptography", "asyncio", "msgspec")
BUDGET_SECONDS = 0.25


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pitstop_cli.main import main; main(['--help']);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_is_quick() -> None:
    """CPU seconds of the best of several: what other processes take is not ours."""
    import resource

    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "pitstop_cli.main", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < BUDGET_SECONDS


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb in ("up", "run", "ssh", "status", "logs", "ls", "cancel", "keys", "dlq", "doctor", "verify", "serve"):
        assert f"\n  {verb} " in listed
        assert main([verb, "--help"]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert VERSION in capsys.readouterr().out
    assert VERSION == SERVICES_VERSION


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frobnicate"]) == exits.USAGE
    assert "frobnicate" in capsys.readouterr().err


def test_serve_without_a_server_says_how(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PITSTOP_NATS_URL", raising=False)
    assert main(["serve", "relay"]) == exits.USAGE
    assert "PITSTOP_NATS_URL=nats://" in capsys.readouterr().err


def test_no_system_is_said_with_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("PITSTOP_DIR", str(tmp_path))
    monkeypatch.delenv("PITSTOP_NATS_URL", raising=False)
    assert main(["ls"]) == exits.AUTH
    told = capsys.readouterr().err
    assert "pitstop login URL" in told and "`pitstop up`" in told


def test_where_the_system_is_looked_for(tmp_path: Path) -> None:
    kept = {"nats": "nats://owner:pw@127.0.0.1:4222", "org": "local", "actor": "ada", "ssh": {"port": 1}}
    (tmp_path / "client.json").write_text(json.dumps(kept))
    here = {"PITSTOP_DIR": str(tmp_path), "PITSTOP_NATS_URL": "", "HOME": str(tmp_path)}
    assert find(None, None, here).local
    assert (find(None, None, here).org, find(None, None, here).actor) == ("local", "ada")
    assert find(None, None, {**here, "PITSTOP_ORG": "acme", "PITSTOP_ACTOR": "bob"}).actor == "bob"
    assert find(None, "mine", {**here, "PITSTOP_ORG": "acme"}).org == "mine"
    elsewhere = find(None, None, {**here, "PITSTOP_NATS_URL": "nats://far:4222"})
    assert (elsewhere.nats, elsewhere.local) == ("nats://far:4222", False)
    assert find("nats://named:1", None, {**here, "PITSTOP_NATS_URL": "nats://far:4222"}).nats == "nats://named:1"


def test_a_folder_that_cannot_be_read_matters_only_when_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "client.json").mkdir()
    here = {"PITSTOP_DIR": str(tmp_path), "PITSTOP_ACTOR": "ada"}
    assert find("nats://named:1", None, here).nats == "nats://named:1"
    with pytest.raises(Failure, match="cannot read"):
        find(None, None, here)


@pytest.mark.parametrize("name", ["a.b", "*", ">", "", "a b"])
def test_a_name_that_is_no_token_never_reaches_a_subject(tmp_path: Path, name: str) -> None:
    (tmp_path / "client.json").write_text(json.dumps({"nats": "nats://x:1", "org": "local"}))
    with pytest.raises(Failure):
        find(None, name or "-", {"PITSTOP_DIR": str(tmp_path)})
    if name:
        with pytest.raises(Failure):
            find(None, None, {"PITSTOP_DIR": str(tmp_path), "PITSTOP_ACTOR": name})


@pytest.mark.parametrize(
    ("result", "code"),
    [("success", 0), ("failure", 1), ("error", 3), ("cancellation", 6), ("timeout", 124), ("skip", 0), ("?", 3)],
)
def test_exit_codes_of_results(result: str, code: int) -> None:
    assert exits.of_result(result) == code


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m pitstop_cli.main --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
