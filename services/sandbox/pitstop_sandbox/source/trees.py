"""The tree of a checkout, on the host's disk, before it goes into the sandbox."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import IO, Final

from pitstop_sandbox.source import lfs
from pitstop_sandbox.source.cache import Cache
from pitstop_sandbox.source.fetching import PLACE, Fetch, Fetcher
from pitstop_sandbox.source.git import Git
from pitstop_sandbox.source.modules import modules_of
from pitstop_sandbox.source.refs import Found, resolve
from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, Credential, Wanted, address

_DEEPEST: Final = 8
_MOST: Final = 100
"""Submodules of submodules, and submodules in all."""
_BRANCH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+-]{0,254}\Z")


class TreeMaker:
    """Makes one tree. `tree` is it."""

    def __init__(self, temp: Path, want: Wanted, org: str, log: IO[bytes], limits: CheckoutLimits,
                 credential: Credential) -> None:  # fmt: skip
        """`temp`: an empty folder of ours."""
        self.tree = temp / "tree"
        self._want = want
        self._limits = limits
        self._git = Git(temp, log, limits, credential, want.local)
        cache = Cache(limits.cache, limits.cache_size) if limits.cache else None
        self._fetcher = Fetcher(self._git, cache, org, credential)
        self._modules = 0

    async def make(self) -> None:
        """Fetch and write it. Raises CheckoutError, OSError."""
        want, git = self._want, self._git
        git.say(f"Fetching {want.what} of {want.url}")
        self.tree.mkdir()
        await git.run(self.tree, "init", "-q", "--template=")
        found = await resolve(git, self.tree, want.url, want.what)
        fetch = Fetch(url=want.url, found=found, depth=want.depth, tags=want.tags, local=bool(want.local))
        await self._place(self.tree, fetch, want.sparse)
        await git.run(self.tree, "log", "-1", "--format=HEAD is now at %h %s", "--no-show-signature")
        if want.patch:
            await self._apply(want.patch)
        if want.submodules:
            await self._submodules(self.tree, want.url, 1)
        await lfs.see_to(git, self.tree, wanted=want.lfs, url=want.url)

    async def _place(self, repo: Path, fetch: Fetch, sparse: tuple[str, ...] = ()) -> None:
        """Fetch into an empty repository, and check out."""
        git = self._git
        await self._fetcher.fetch(fetch, repo)
        commit = f"{PLACE}^{{commit}}"
        await git.check_tree(repo, commit)
        if sparse:
            await self._be_sparse(repo, sparse)
        branch, name = fetch.found.branch, fetch.found.name
        onto = ("-B", branch) if branch and _BRANCH.match(branch) else ("--detach",)
        await git.run(repo, "checkout", "--quiet", "--force", *onto, commit)
        kept = f"refs/remotes/origin/{branch}" if len(onto) > 1 else name if name.startswith("refs/tags/") else ""
        if kept:
            await git.run(repo, "update-ref", kept, PLACE)
        await git.run(repo, "update-ref", "-d", PLACE)
        await git.run(repo, "remote", "add", "origin", fetch.url)

    async def _be_sparse(self, repo: Path, patterns: tuple[str, ...]) -> None:
        with tempfile.TemporaryFile() as listed:
            listed.write("".join(f"{pattern}\n" for pattern in patterns).encode())
            listed.seek(0)
            cone = "--cone" if self._want.cone else "--no-cone"
            await self._git.run(repo, "sparse-checkout", "set", cone, "--stdin", stdin=listed)

    async def _submodules(self, repo: Path, url: str, level: int) -> None:
        for module in await modules_of(self._git, repo, url):
            self._modules += 1
            if level > _DEEPEST or self._modules > _MOST:
                raise CheckoutError(f"more than {_MOST} submodules, or {_DEEPEST} levels of them")
            where, local = address(module.url, self._limits)
            if local and not self._want.local:
                raise CheckoutError(f"the submodule {module.path} names a folder of this host")
            folder = module.folder(repo)
            self._git.say(f"Fetching submodule {module.path} of {where}")
            await self._git.run(folder, "init", "-q", "--template=")
            found = Found(module.sha)
            if not local:  # which proves that this run may read it
                await resolve(self._git, folder, where, module.sha)
            await self._place(folder, Fetch(url=where, found=found, depth=self._want.depth, local=bool(local)))
            await self._git.run(repo, "config", f"submodule.{module.name}.url", where)
            await self._git.run(repo, "config", f"submodule.{module.name}.active", "true")
            if self._want.submodules == "recursive":
                await self._submodules(folder, where, level + 1)

    async def _apply(self, patch: bytes) -> None:
        """The uncommitted change of who asked for the run: uncommitted here, too."""
        with tempfile.TemporaryFile() as file:
            file.write(patch)
            file.seek(0)
            try:
                await self._git.run(
                    self.tree, "apply", "--binary", "--whitespace=nowarn", "-", stdin=file, bounded=True
                )
            except CheckoutError:
                raise CheckoutError(
                    "the patch of the request does not fit this commit; git's words are above. Commit the change, or "
                    "run without it: pitstop run --committed"
                ) from None
        if await _too_much(self.tree, self._limits.size):
            raise CheckoutError(f"with the patch the tree is larger than {self._limits.size >> 20} MiB")
        self._git.say(f"Applied a patch of {patch.count(b'diff --git ')} uncommitted file(s)")


async def _too_much(tree: Path, limit: int) -> bool:
    total = 0
    for folder, _, files in os.walk(tree):
        total += sum(os.lstat(f"{folder}/{file}").st_size for file in files)
        if total > 2 * limit:  # the tree, and its objects
            return True
    return False
