"""The git checkout that the command was called in, and the workflow file in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from pitstop_cli.exits import USAGE, Failure

FOLDERS: Final = (".pitstop/workflows", ".github/workflows", ".depot/workflows")
_GIT_SECONDS: Final = 20.0


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """What HEAD is. `origin` is without credentials, empty when there is none; `ref` empty when HEAD is detached."""

    root: Path
    sha: str
    ref: str
    origin: str
    dirty: int
    """Files changed or new that HEAD does not have."""
    pushed: bool
    """Some remote branch has HEAD, as far as this clone knows."""

    @property
    def name(self) -> str:
        """A project's name: the repository's, else the folder's."""
        path = self.origin.rstrip("/").removesuffix(".git") or self.root.name
        last = re.split(r"[/:]", path)[-1]
        return re.sub(r"[^A-Za-z0-9._-]", "-", last).strip(".-_")[:100] or "project"


def read_checkout(folder: Path) -> Checkout:
    """The checkout around `folder`. Raises Failure when there is none, or nothing is committed."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    if not root:
        raise Failure(
            f"{folder} is not in a git checkout", next="cd into one; a run checks out what is committed", code=USAGE
        )
    sha = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not sha:
        raise Failure(f"nothing is committed in {root}", next="git add . && git commit", code=USAGE)
    status = _git(folder, "status", "--porcelain")
    return Checkout(
        root=Path(root),
        sha=sha,
        ref=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD"),
        origin=without_credentials(_git(folder, "config", "--get", "remote.origin.url")),
        dirty=len(status.splitlines()),
        pushed=bool(_git(folder, "branch", "--remotes", "--contains", sha)),
    )


def without_credentials(url: str) -> str:
    """`https://token@host/x` -> `https://host/x`: a token in a URL must not travel. ssh URLs keep their user."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def workflow_file(named: Path | None, root: Path) -> Path:
    """The file that was named, else the only one of the workflow folders. Raises Failure that lists them."""
    if named is not None:
        found = named if named.is_file() else root / named
        if not found.is_file():
            raise Failure(f"there is no workflow file {named}", next=_known(root), code=USAGE)
        return found
    for folder in FOLDERS:
        files = _files(root / folder)
        if len(files) == 1:
            return files[0]
        if files:
            listed = "\n  ".join(f"pitstop run --workflow {file.relative_to(root)}" for file in files)
            raise Failure(f"{folder} has {len(files)} workflow files; name one", next=listed, code=USAGE)
    raise Failure("no workflow file found", next=f"write {FOLDERS[0]}/ci.yml, or name one: --workflow FILE", code=USAGE)


def _known(root: Path) -> str:
    files = [str(file.relative_to(root)) for folder in FOLDERS for file in _files(root / folder)]
    return f"there are: {', '.join(files)}" if files else "write one: see examples/ in Pitstop's repository"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.y*ml") if file.suffix in {".yml", ".yaml"} and file.is_file())


def _git(folder: Path, *args: str) -> str:
    """The output of a git command; empty when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise Failure("git is not installed", next="apt install git", code=USAGE) from None
    except subprocess.TimeoutExpired:
        raise Failure(f"git {args[0]} took longer than {_GIT_SECONDS:.0f} s") from None
    return done.stdout.strip() if done.returncode == 0 else ""
