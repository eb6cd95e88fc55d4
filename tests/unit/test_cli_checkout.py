"""What `pitstop run` reads from the checkout, and usage errors found before any connection is made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pitstop_cli.checkout import read_checkout, without_credentials, workflow_file
from pitstop_cli.exits import USAGE, Failure
from pitstop_cli.main import main

WORKFLOW = 'jobs:\n  build:\n    steps:\n      - {name: a, run: "true"}\n      - {name: b, run: "true"}\n'


def git(folder: Path, *args: str) -> str:
    config = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    return subprocess.run(
        ["git", "-C", folder, *config, *args], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my web"
    (folder / ".pitstop" / "workflows").mkdir(parents=True)
    (folder / ".pitstop" / "workflows" / "ci.yml").write_text(WORKFLOW)
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PITSTOP_NATS_URL", "nats://owner:pw@127.0.0.1:1")  # nobody listens there
    monkeypatch.setenv("PITSTOP_DIR", str(tmp_path / "none"))
    return folder


def test_head_is_read_from_any_folder(repo: Path) -> None:
    deep = repo / "x" / "y"
    deep.mkdir(parents=True)
    found = read_checkout(deep)
    assert (found.root, found.ref, found.sha) == (repo, "main", git(repo, "rev-parse", "HEAD"))
    assert (found.name, found.dirty, found.origin, found.pushed) == ("my-web", 0, "", False)


def test_changes_and_new_files_count_as_uncommitted(repo: Path) -> None:
    (repo / "new").write_text("x")
    (repo / ".pitstop" / "workflows" / "ci.yml").write_text(WORKFLOW + "#")
    assert read_checkout(repo).dirty == 2


def test_a_detached_head_has_no_ref(repo: Path) -> None:
    git(repo, "checkout", "-q", "--detach")
    assert read_checkout(repo).ref == ""


def test_the_name_comes_from_origin_and_its_token_does_not(repo: Path) -> None:
    git(repo, "remote", "add", "origin", "https://x:token@example.org/acme/web.git")
    found = read_checkout(repo)
    assert (found.name, found.origin) == ("web", "https://example.org/acme/web.git")


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://token@h/x", "https://h/x"), ("https://u:p@h:8443/x", "https://h:8443/x"), ("git@h:x", "git@h:x"),
        ("ssh://git@h/x", "ssh://git@h/x"), ("/srv/x", "/srv/x"), ("https://h/x@y", "https://h/x@y"),
    ],
)  # fmt: skip
def test_credentials_do_not_travel(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


def test_outside_of_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not in a git checkout"):
        read_checkout(tmp_path)


def test_nothing_committed(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(Failure, match="nothing is committed"):
        read_checkout(tmp_path)


def test_the_only_workflow_is_taken_and_several_are_listed(repo: Path) -> None:
    assert workflow_file(None, repo).name == "ci.yml"
    (repo / ".pitstop" / "workflows" / "b.yaml").write_text(WORKFLOW)
    with pytest.raises(Failure, match="2 workflow files") as failure:
        workflow_file(None, repo)
    assert "pitstop run --workflow .pitstop/workflows/b.yaml" in failure.value.next
    assert workflow_file(Path(".pitstop/workflows/b.yaml"), repo).name == "b.yaml"


@pytest.mark.parametrize("folder", [".github/workflows", ".depot/workflows"])
def test_workflows_of_others_are_found(repo: Path, folder: str) -> None:
    (repo / ".pitstop" / "workflows" / "ci.yml").unlink()
    with pytest.raises(Failure, match="no workflow file found"):
        workflow_file(None, repo)
    (repo / folder).mkdir(parents=True)
    (repo / folder / "x.yml").write_text(WORKFLOW)
    assert workflow_file(None, repo) == repo / folder / "x.yml"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ssh-after-step", "3"), "job build has 2 steps"),
        (("--ssh-after-step", "0"), "job build has 2 steps"),
        (("--ssh-after-step", "1", "--ssh"), "cannot be combined"),
        (("--ssh-after-step", "x"), "not a valid integer"),
        (("--job", "nope"), "nope"),
        (("--idle-timeout", "soon", "--ssh-at-end"), "is not a duration"),
        (("--ssh-at-end", "--ssh-key", "/nowhere.pub"), "there is no file /nowhere.pub"),
        (("--workflow", "nowhere.yml"), "there is no workflow file nowhere.yml"),
        (("--priority", "1000"), "1000"),
    ],
)
def test_usage_errors_come_before_any_connection(
    repo: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    code = main(["run", *options])
    told = capsys.readouterr().err
    assert words in told
    assert "does not answer" not in told
    assert code == USAGE


def test_faults_of_the_workflow_are_shown_as_file_line_and_column(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo / ".pitstop" / "workflows" / "ci.yml").write_text("jobs:\n  build:\n    needs: a\n    steps: 3\n")
    assert main(["run"]) == USAGE
    told = capsys.readouterr().err
    assert ".pitstop/workflows/ci.yml:3:" in told
    assert ".pitstop/workflows/ci.yml:4:" in told


def test_a_system_elsewhere_needs_an_origin(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == USAGE
    assert "has no remote `origin`" in capsys.readouterr().err
