"""Which commit a ref is, asked of the server: so each checkout proves that its run may read the repository."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.source.git import Git
from pitstop_sandbox.source.wish import SHA, CheckoutError

_NEAR: Final = 5
_CUTOFF: Final = 0.5
_PRIVATE: Final = (
    "a private one needs a secret GIT_TOKEN (https) or GIT_SSH_KEY (ssh) in a context of the run (`secrets`)"
)


class Found(msgspec.Struct, frozen=True):
    """`name`: the full name of the ref; empty for a commit that was named itself."""

    sha: str
    name: str = ""

    @property
    def branch(self) -> str:
        """Its short name; empty when it is none."""
        return self.name.removeprefix("refs/heads/") if self.name.startswith("refs/heads/") else ""


async def resolve(git: Git, repo: Path, url: str, what: str) -> Found:
    """`repo`: any of ours. Raises CheckoutError: the server is not there or refuses, or has no such ref (with names
    that are near)."""
    commit = SHA.match(what) is not None
    names = ["HEAD"] if commit else _names(what)
    answer = await git.ask(repo, "ls-remote", "--symref", "--", url, *names)
    if answer is None:
        raise CheckoutError(f"{url} cannot be read; git's words are above. {_PRIVATE[0].upper()}{_PRIVATE[1:]}")
    if commit:
        return Found(what)
    refs, head = _parsed(answer)
    for name in names:
        if name in refs:
            return Found(refs[name], head if name == "HEAD" else name)
    raise CheckoutError(await _missing(git, repo, url, what))


def _names(what: str) -> list[str]:
    if what == "HEAD" or what.startswith("refs/"):
        return [what]
    return [f"refs/heads/{what}", f"refs/tags/{what}", f"refs/{what}"]


def _parsed(answer: bytes) -> tuple[dict[str, str], str]:
    """Names and commits, and what HEAD stands for."""
    refs: dict[str, str] = {}
    head = ""
    for line in answer.decode("utf-8", "replace").splitlines():
        first, _, name = line.partition("\t")
        if first.startswith("ref: ") and name == "HEAD":
            head = first.removeprefix("ref: ")
        elif SHA.match(first) and not name.endswith("^{}"):
            refs[name] = first
    return refs, head


async def _missing(git: Git, repo: Path, url: str, what: str) -> str:
    answer = await git.ask(repo, "ls-remote", "--heads", "--tags", "--", url)
    refs, _ = _parsed(answer or b"")
    names = [name.split("/", 2)[2] for name in refs]
    if not names:
        return f"{url} has no branch and no tag: is anything pushed there?"
    short = what.removeprefix("refs/heads/").removeprefix("refs/tags/")
    near = difflib.get_close_matches(short, names, _NEAR, _CUTOFF)
    listed = f"near ones: {', '.join(near)}" if near else f"there are: {', '.join(names[:_NEAR])}"
    more = f" (and {len(names) - _NEAR} more)" if not near and len(names) > _NEAR else ""
    return f"{url} has no branch or tag {short}; {listed}{more}"
