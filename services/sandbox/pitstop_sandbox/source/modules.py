"""The submodules that a commit names. What `.gitmodules` says is hostile; nothing of it is given to `git submodule`."""

from __future__ import annotations

import posixpath
import re
import stat
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.source.git import Git
from pitstop_sandbox.source.wish import SHA, CheckoutError

_KEY: Final = re.compile(r"submodule\.(.+)\.(path|url)\Z", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+ -]{0,254}\Z")
_MOST_BYTES: Final = 1 << 20


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """One of a commit. `path` in its tree; `url` with what is relative in it resolved."""

    name: str
    path: str
    url: str
    sha: str

    def folder(self, repo: Path) -> Path:
        """Where it goes. Raises CheckoutError: something else is in the way."""
        folder = repo
        for part in self.path.split("/"):
            folder = folder / part
            folder.mkdir(exist_ok=True)
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise CheckoutError(f"the submodule {self.path} has no folder of its own")
        if any(folder.iterdir()):
            raise CheckoutError(f"the folder of the submodule {self.path} is not empty")
        return folder


async def modules_of(git: Git, repo: Path, url: str) -> list[Module]:
    """Those of HEAD that have a path, a URL and a commit. `url`: of the repository. Raises CheckoutError."""
    if not await git.ask(repo, "ls-tree", "-z", "HEAD", "--", ".gitmodules"):
        return []
    listed = await git.ask(repo, "config", "-z", "--blob", "HEAD:.gitmodules", "--get-regexp",
                           r"^submodule\..*\.(path|url)$", most=_MOST_BYTES)  # fmt: skip
    said: dict[str, dict[str, str]] = {}
    for entry in (listed or b"").decode("utf-8", "replace").split("\0"):
        key, _, value = entry.partition("\n")
        if found := _KEY.match(key):
            said.setdefault(found[1], {})[found[2]] = value
    modules = []
    for name, values in said.items():
        path = values.get("path", "")
        if not _safe(name) or not _safe(path) or "url" not in values:
            raise CheckoutError(f".gitmodules: the submodule {name!r} has a name, path or URL that cannot be used")
        sha = await _commit(git, repo, path)
        if sha:
            modules.append(Module(name=name, path=path, url=resolved(values["url"], url), sha=sha))
    return modules


async def _commit(git: Git, repo: Path, path: str) -> str:
    """Empty: the tree has something else there, or nothing (which git, too, passes over)."""
    line = (await git.ask(repo, "--literal-pathspecs", "ls-tree", "-z", "HEAD", "--", path) or b"").decode(
        "utf-8", "replace"
    )
    about = line.split("\t", 1)[0].split()
    return about[2] if len(about) == 3 and about[1] == "commit" and SHA.match(about[2]) else ""


def _safe(path: str) -> bool:
    parts = path.split("/")
    return bool(_NAME.match(path)) and not any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)


def resolved(url: str, parent: str) -> str:
    """`../other` beside the parent's URL, as git does; anything else as it is. Raises CheckoutError."""
    if not url.startswith(("./", "../")):
        return url
    scheme, separator, rest = parent.rpartition("://")
    separator, rest = (separator, rest) if scheme else ("", parent)
    colon = not scheme and ":" in rest and not rest.startswith("/")
    host, slash, path = rest.partition(":" if colon else "/") if scheme or colon else ("", "", rest)
    joined = posixpath.normpath(posixpath.join("/", path.rstrip("/"), url))
    if path.rstrip("/").count("/") + 1 < url.count("../"):
        raise CheckoutError(f"the submodule's URL {url!r} leads out of its server")
    return f"{scheme}{separator}{host}{slash}{joined.lstrip('/') if scheme or colon else joined}"
