"""What is not committed here is there too: whatever a work tree can hold goes through a patch unchanged."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.git_server import commit, git

from pitstop_cli.exits import Failure
from pitstop_cli.patch import Patch, read_patch
from pitstop_common.patches import pack
from pitstop_common.spec import Source, StepSpec
from pitstop_sandbox.source.trees import TreeMaker
from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, Credential, wanted

NAMES = ("plain", "sp ace", "tab\there", 'quo"te', "new\nline", "über", "-dash", "caf\udce9")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text("".join(f"{n}\n" for n in range(40)))
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "latin").write_bytes("é\n".encode("latin-1") * 20)
    (folder / "dos").write_bytes(b"one\r\ntwo\r\n")
    (folder / "gone").write_text("gone")
    (folder / "sub" / "moved").write_text("".join(f"line {n}\n" for n in range(40)))
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "link").symlink_to("plain")
    (folder / "becomes-link").write_text("x")
    (folder / ".gitignore").write_text("ignored\n")
    commit(folder)
    return folder


def change(folder: Path) -> None:
    """All that can happen to a file."""
    for name in NAMES:
        with (folder / name).open("a") as file:
            file.write("more, without an end")
    (folder / "binary").write_bytes(os.urandom(5000))
    (folder / "latin").write_bytes("é\nü\n".encode("latin-1") * 20)
    (folder / "dos").write_bytes(b"one\r\n2\r\n")
    (folder / "gone").unlink()
    git(folder, "mv", "sub/moved", "renamed")
    (folder / "tool").chmod(0o755)
    (folder / "link").unlink()
    (folder / "link").symlink_to("../../etc")
    (folder / "becomes-link").unlink()
    (folder / "becomes-link").symlink_to("plain")
    (folder / "empty").touch()
    (folder / "new" / "deep").mkdir(parents=True)
    (folder / "new" / "deep" / "x.bin").write_bytes(b"\0\1\2" * 100)
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "staged").write_text("staged")
    git(folder, "add", "staged")
    (folder / "ignored").write_text("never leaves")


def seen(folder: Path) -> dict[str, tuple[bool, bytes]]:
    """All files but git's own: executable, and content or link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsdecode(os.fsencode(path.relative_to(folder)))
        if name.split("/")[0] == ".git" or (path.is_dir() and not path.is_symlink()) or name == "ignored":
            continue
        mode = path.lstat().st_mode
        content = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else path.read_bytes()
        found[name] = (bool(mode & 0o100), content)
    return found


async def checked_out(folder: Path, source: Source, temp: Path) -> tuple[Path, str]:
    """The tree that a checkout of it makes, and what it says."""
    limits = CheckoutLimits(local=True)
    want = wanted(source, StepSpec(index=1, name="x"), limits, "/w")
    temp.mkdir()
    with (temp / "log").open("ab", buffering=0) as log:
        maker = TreeMaker(temp, want, "acme", log, limits, Credential())
        await maker.make()
    return maker.tree, (temp / "log").read_text()


def source_of(folder: Path, patch: Patch) -> Source:
    """As `pitstop run` asks for it."""
    head = git(folder, "rev-parse", "HEAD")
    return Source(git=str(folder), sha=head, patch=patch.text, patch_encoding="zlib" if patch.text else "")


async def test_everything_that_can_change_goes_along(repo: Path, tmp_path: Path) -> None:
    git(repo, "config", "diff.noprefix", "true")
    git(repo, "config", "core.autocrlf", "input")
    git(repo, "config", "core.autocrlf", "false")
    change(repo)
    before = git(repo, "status", "--porcelain", "--untracked-files=all")
    objects = sorted(path for path in (repo / ".git").rglob("*"))
    patch = read_patch(repo)
    assert git(repo, "status", "--porcelain", "--untracked-files=all") == before
    assert sorted(path for path in (repo / ".git").rglob("*")) == objects
    tree, said = await checked_out(repo, source_of(repo, patch), tmp_path / "out")
    assert seen(tree) == seen(repo)
    assert "uncommitted file(s)" in said and not (tree / "ignored").exists()
    assert git(tree, "rev-parse", "HEAD") == git(repo, "rev-parse", "HEAD")


async def test_no_change_no_patch(repo: Path) -> None:
    assert read_patch(repo) == Patch()
    (repo / "plain").touch()
    assert read_patch(repo).text == ""


async def test_what_has_its_own_repository_is_told(repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("x")
    commit(other)
    git(repo, "submodule", "-q", "add", str(other), "module")
    commit(repo, "with a module")
    (repo / "module" / "file").write_text("changed")
    git(repo, "clone", "-q", str(other), "inner")
    (repo / "plain").write_text("x")
    patch = read_patch(repo)
    assert set(patch.left_out) == {"module", "inner/"} and patch.files == ("plain",)
    tree, _ = await checked_out(repo, source_of(repo, patch), tmp_path / "out")
    assert (tree / "plain").read_text() == "x" and list((tree / "module").iterdir()) == []


def test_a_change_that_is_too_large_names_its_files(repo: Path) -> None:
    (repo / "big").write_bytes(os.urandom(400_000))
    with pytest.raises(Failure, match=r"packed .* KiB are the limit[^$]*391 KiB  big") as failure:
        read_patch(repo)
    assert "--committed" in failure.value.next
    (repo / "big").write_bytes(b"\0" * 100_000_000)
    with pytest.raises(Failure, match="97,656 KiB  big"):
        read_patch(repo)


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/pitstop-outside", ".git/hooks/post-checkout", ".git/config", "sub/../../outside"]
)
async def test_a_hostile_patch_writes_nowhere_else(repo: Path, tmp_path: Path, name: str) -> None:
    diff = (f"diff --git a/{name} b/{name}\nnew file mode 100755\n--- /dev/null\n+++ b/{name}\n"
            "@@ -0,0 +1 @@\n+touched\n")  # fmt: skip
    await refused(repo, tmp_path, diff.encode())
    assert not (tmp_path / "outside").exists() and not Path("/tmp/pitstop-outside").exists()


async def test_a_hostile_patch_follows_no_link_and_does_not_fill_the_memory(repo: Path, tmp_path: Path) -> None:
    link = ("diff --git a/way b/way\nnew file mode 120000\n--- /dev/null\n+++ b/way\n@@ -0,0 +1 @@\n+..\n"
            "\\ No newline at end of file\n"
            "diff --git a/way/outside b/way/outside\nnew file mode 100644\n--- /dev/null\n+++ b/way/outside\n"
            "@@ -0,0 +1 @@\n+touched\n")  # fmt: skip
    await refused(repo, tmp_path, link.encode())
    assert not (tmp_path / "out" / "outside").exists() and not (tmp_path / "outside").exists()
    with pytest.raises(CheckoutError, match="larger than 8 MiB"):
        wanted(Source(git=str(repo), sha="a" * 40, patch=pack(b"x" * 9_000_000), patch_encoding="zlib"),
               StepSpec(index=1, name="x"), CheckoutLimits(local=True), "/w")  # fmt: skip


async def refused(repo: Path, tmp_path: Path, diff: bytes) -> None:
    """The checkout fails, and says what to do."""
    source = source_of(repo, Patch(text=pack(diff)))
    with pytest.raises(CheckoutError, match="does not fit this commit"):
        await checked_out(repo, source, tmp_path / "out")


async def test_a_patch_is_for_the_commit_of_the_run_only(repo: Path) -> None:
    (repo / "plain").write_text("x")
    source = source_of(repo, read_patch(repo))
    spec = StepSpec(index=1, name="x", options={"ref": "main"})
    assert wanted(source, spec, CheckoutLimits(local=True), "/w").patch == b""
