"""Checkout by the host's git into the sandbox: what comes in, and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.jobs import driven, run_of, step

from pitstop_common.spec import Source, StepSpec
from pitstop_sandbox.settings import Settings
from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, wanted

CHECKOUT = step(kind="checkout", name="checkout")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "file").write_text("one\n")
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("file")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "the first")
    (folder / "file").write_text("two\n")
    git(folder, "commit", "-q", "-am", "the second")
    git(folder, "tag", "v1", "HEAD~1")
    git(folder, "switch", "-q", "-c", "topic/x")
    (folder / "file").write_text("three\n")
    git(folder, "commit", "-q", "-am", "the third")
    git(folder, "switch", "-q", "main")
    return folder


async def test_the_tree_comes_in_with_its_git_folder(tmp_path: Path, origin: Path) -> None:
    script = (
        "cat file; ./run.sh; readlink link; git log --format=%s; git status --short; git remote -v; stat -c %U file"
    )
    run = run_of(CHECKOUT, script, source=Source(git=str(origin), ref="main"))
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.runner.finished == "success"
        lines = job.store.log(2)
        assert lines[:4] == ["two", "ran", "file", "the second"]
        assert str(origin) in lines[4] and lines[-1] == "runner"
        assert job.store.log(1)[-1].endswith("the second")
        assert not list((job.folder / "checkout").glob("tree-*"))


@pytest.mark.parametrize(
    ("source", "options", "subject", "branch"),
    [
        ({"ref": "topic/x"}, {}, "the third", "topic/x"),
        ({"ref": "refs/heads/topic/x"}, {}, "the third", "topic/x"),
        ({"ref": "v1"}, {}, "the first", ""),
        ({"ref": "main"}, {"ref": "v1", "path": "sub/there"}, "the first", ""),
        ({"sha": "main~1"}, {}, "the first", ""),
    ],
)
async def test_refs_commits_and_paths(tmp_path: Path, origin: Path, source: dict[str, str], options: dict[str, str],
                                      subject: str, branch: str) -> None:  # fmt: skip
    if "sha" in source:
        source = {"sha": git(origin, "rev-parse", source["sha"]), "ref": "main"}
    where = options.get("path", ".")
    run = run_of(
        step(kind="checkout", options=options),
        f"cd {where}; git log -1 --format=%s; git branch --show-current; git rev-parse --is-shallow-repository",
        source=msgspec.convert({"git": str(origin), **source}, Source),
    )
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.store.log(2) == [subject, *([branch] if branch else []), "true"]


async def test_the_whole_history_when_asked(tmp_path: Path, origin: Path) -> None:
    run = run_of(step(kind="checkout", options={"fetch-depth": "0"}), "git log --format=%s",
                 source=Source(git=str(origin), ref="main"))  # fmt: skip
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.store.log(2) == ["the second", "the first"]


async def test_nothing_of_the_repository_runs_on_the_host(tmp_path: Path, origin: Path) -> None:
    proof = tmp_path / "proof"
    (origin / ".gitattributes").write_text("file filter=evil\n")
    (origin / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/x\n')
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "evil")
    for name in ("post-checkout", "reference-transaction"):
        hook = origin / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch '{proof}'\n")
        hook.chmod(0o755)
    template = tmp_path / "home"
    template.mkdir()
    (template / ".gitconfig").write_text(
        f"[filter \"evil\"]\n\tsmudge = touch '{proof}'\n[core]\n\tfsmonitor = touch\n"
    )
    before, os.environ["HOME"] = os.environ.get("HOME", "/"), str(template)
    try:
        async with driven(run_of(CHECKOUT, "cat file", source=Source(git=str(origin))), tmp_path / "job") as job:
            await job.end()
            assert job.store.log(2) == ["two"]
    finally:
        os.environ["HOME"] = before
    assert not proof.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"git": "{origin}", "ref": "nosuch"}, "has no branch or tag nosuch; there are: main, topic/x, v1"),
        ({"git": ""}, "names no repository"),
        ({"git": "http://example.org/x"}, "not a repository URL"),
        ({"git": "ext::sh -c id"}, "not a repository URL"),
        ({"git": "--upload-pack=id"}, "not a repository URL"),
        ({"git": "{origin}", "ref": "--upload-pack=id"}, "not a ref"),
    ],
)
async def test_what_cannot_be_had_fails_the_step_and_says_why(
    tmp_path: Path, origin: Path, source: dict[str, str], words: str
) -> None:
    filled = {name: value.format(origin=origin) for name, value in source.items()}
    async with driven(run_of(CHECKOUT, "true", source=msgspec.convert(filled, Source)), tmp_path / "job") as job:
        await job.end()
        assert job.runner.finished == "failure"
        assert words in job.store.log(1)[-1]


async def test_a_tree_over_the_limit_is_refused(tmp_path: Path, origin: Path) -> None:
    (origin / "big").write_bytes(b"\0" * 3_000_000)
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "big")
    limits = Settings(checkout=CheckoutLimits(local=True, size=2 * 2**20))
    run = run_of(CHECKOUT, source=Source(git=str(origin)))
    async with driven(run, tmp_path / "job", settings=limits) as job:
        await job.end()
        assert "larger than this host's limit of 2 MiB" in job.store.log(1)[-1]


def test_local_folders_only_where_the_host_allows_them(tmp_path: Path) -> None:
    spec = StepSpec(index=1, name="x", kind="checkout")
    with pytest.raises(CheckoutError, match="PITSTOP_LOCAL_SOURCES"):
        wanted(Source(git=str(tmp_path)), spec, CheckoutLimits(), "/w")
    with pytest.raises(CheckoutError, match="out of the workspace"):
        outside = StepSpec(index=1, name="x", kind="checkout", options={"path": "../x"})
        wanted(Source(git="https://example.org/x"), outside, CheckoutLimits(), "/w")
    with pytest.raises(CheckoutError, match="fetch-depth"):
        wanted(Source(git="https://example.org/x"), StepSpec(index=1, name="x", options={"fetch-depth": "-1"}),
               CheckoutLimits(), "/w")  # fmt: skip
