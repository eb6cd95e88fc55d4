"""The uncommitted change of a checkout, as a patch that a run's checkout applies: what `git add -A` would commit now.

Nothing of the checkout is touched: index and objects that git needs for it are in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from pitstop_cli.exits import USAGE, Failure
from pitstop_common.limits import MAX_PATCH_BYTES, MAX_PATCH_CHARS
from pitstop_common.patches import pack

_SECONDS: Final = 60.0
_SHOWN: Final = 5
_HOPELESS: Final = 8 * MAX_PATCH_BYTES
"""Bytes of changed files: their patch is not even tried."""


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """`text`: for the request; empty: there is no change. `files`: whose change it is, `size` bytes of diff.
    `left_out`: submodules with changes of their own, and repositories inside this one."""

    text: str = ""
    files: tuple[str, ...] = ()
    size: int = 0
    left_out: tuple[str, ...] = ()


def read_patch(root: Path) -> Patch:
    """Of the checkout at `root`. Raises Failure: too large, with the largest files."""
    changed, left_out = _changed(root)
    if not changed:
        return Patch(left_out=left_out)
    _check(root, changed, sum(map(_size, (root / name for name in changed))), _HOPELESS)
    with tempfile.TemporaryDirectory(prefix="pitstop-") as temp:
        diff = _diff(root, Path(temp))
    text = pack(diff) if diff else ""
    _check(root, changed, len(diff), MAX_PATCH_BYTES)
    _check(root, changed, len(text), MAX_PATCH_CHARS, "packed ")
    return Patch(text=text, files=changed if diff else (), size=len(diff), left_out=left_out)


def _changed(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files that HEAD does not have as they are, and what cannot be in a patch."""
    said = _git(root, "status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames").split(b"\0")
    changed: list[str] = []
    left_out: list[str] = []
    for entry in said:
        kind, _, rest = entry.partition(b" ")
        if kind in (b"?", b"1", b"u"):
            fields = rest.split(b" ", {b"?": 0, b"1": 7, b"u": 9}[kind])
            name = os.fsdecode(fields[-1])
            module = kind != b"?" and fields[1][:1] == b"S"
            (left_out if module or name.endswith("/") else changed).append(name)
    return tuple(changed), tuple(left_out)


def _diff(root: Path, temp: Path) -> bytes:
    index, objects = (os.fsdecode(_git(root, "rev-parse", "--git-path", name)).strip() for name in ("index", "objects"))
    (temp / "objects").mkdir()
    if (root / index).exists():
        shutil.copyfile(root / index, temp / "index")
    env = {"GIT_INDEX_FILE": str(temp / "index"), "GIT_OBJECT_DIRECTORY": str(temp / "objects"),
           "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve())}  # fmt: skip
    _git(root, "-c", "core.safecrlf=false", "-c", "advice.addEmbeddedRepo=false", "add", "--all", env=env)
    return _git(root, "diff-index", "--cached", "-p", "--binary", "--full-index", "-M", "--no-color", "--no-ext-diff",
                "--no-textconv", "--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/", "HEAD",
                env=env)  # fmt: skip


def _check(root: Path, changed: tuple[str, ...], size: int, limit: int, kind: str = "") -> None:
    if size <= limit:
        return
    largest = sorted(changed, key=lambda name: -_size(root / name))[:_SHOWN]
    listed = "\n  ".join(f"{_size(root / name) / 1024:,.0f} KiB  {name}" for name in largest)
    raise Failure(
        f"the uncommitted change is too large to go with the run: {kind}{size / 1024:,.0f} KiB, and {limit // 1024:,} "
        f"KiB are the limit. Its largest files:\n  {listed}",
        next="commit and push it, put it into .gitignore, or run what is committed: pitstop run --committed",
        code=USAGE,
    )


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # it was removed
        return 0


def _git(root: Path, *arguments: str, env: dict[str, str] | None = None) -> bytes:
    argv = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=_SECONDS, check=False, env={**os.environ, **(env or {})}
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"git {arguments[0]} took longer than {_SECONDS:.0f} s", next="pitstop run --committed") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Failure(f"the uncommitted change cannot be read: {said}", next="pitstop run --committed", code=USAGE)
    return done.stdout
