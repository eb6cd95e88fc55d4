"""A commit into a repository of ours: from the server, by way of the cache where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.source.cache import Cache, key_of
from pitstop_sandbox.source.git import Git, TooLarge
from pitstop_sandbox.source.refs import Found
from pitstop_sandbox.source.wish import CheckoutError, Credential

_MOST_PACKS: Final = 200
"""Each fetch leaves one. With more an entry is made anew."""
_ALL: Final = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_DEPTH: Final = "pitstop-depth"
_TAGS: Final = "+refs/tags/*:refs/tags/*"
PLACE: Final = "refs/pitstop/wanted"
"""Where a fetched commit is in a tree's repository."""


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """What of which repository. `depth` 0: all of its history, branches and tags."""

    url: str
    found: Found
    depth: int
    tags: bool = False
    local: bool = False


class Fetcher:
    """Fetches for one org and credential."""

    def __init__(self, git: Git, cache: Cache | None, org: str, credential: Credential) -> None:
        self._git = git
        self._cache = cache
        self._whose = (org, credential.header, credential.key)

    async def fetch(self, what: Fetch, tree: Path) -> None:
        """Into `tree`, an empty repository, as the ref PLACE. Raises CheckoutError."""
        if self._cache is None or what.local:
            await self._into_tree(what, tree, what.url, own=False)
        elif not await self._by_cache(self._cache, what, tree):
            self._git.say("What this host has kept of the repository could not be used; it is fetched anew.")
            await self._by_cache(self._cache, what, tree)

    async def _by_cache(self, cache: Cache, what: Fetch, tree: Path) -> bool:
        """False: there was something in the cache with which it could not be done, and now there is not."""
        org, *credential = self._whose
        try:
            async with cache.entry(key_of(org, what.url, *credential), self._waits) as entry:
                had = entry.path.exists()
                try:
                    if not (had and await self._have(entry.path, what)):
                        await self._refresh(entry.path, what)
                    entry.share()
                    await self._into_tree(what, tree, str(entry.path), own=True)
                except (CheckoutError, OSError) as error:
                    entry.spoil()
                    if not had or isinstance(error, TooLarge):
                        raise
                    return False
            return True
        finally:
            await cache.sweep()

    def _waits(self) -> None:
        self._git.say("Waiting for another job of this host that fetches the same repository.")

    async def _have(self, bare: Path, what: Fetch) -> bool:
        """Is nothing to be fetched: whoever asks has just proved that they may read the repository. (How much lies
        before a commit is known of whole histories only: a later fetch may have cut it shorter.)"""
        whole = _depth_of(bare) == 0
        if what.tags or not what.depth or not (what.depth == 1 or whole):
            return False
        kept = await self._git.ask(bare, "rev-parse", "--verify", "--quiet", _kept(what.found).partition(":")[2])
        return (kept or b"").decode().strip() == what.found.sha

    async def _refresh(self, bare: Path, what: Fetch) -> None:
        """Have the commit, and as much before it as was ever asked for."""
        if not (bare / "HEAD").exists():
            bare.mkdir(mode=0o700, exist_ok=True)
            await self._git.run(bare, "init", "-q", "--bare", "--template=")
        if len(list(bare.glob("objects/pack/*.pack"))) > _MOST_PACKS:
            raise CheckoutError("too many packs are kept")
        for left in (*bare.glob("objects/pack/tmp_*"), *bare.glob("*.lock"), *bare.glob("refs/**/*.lock")):
            left.unlink()  # of a fetch that was killed; nobody else is here
        before = _depth_of(bare)
        depth = 0 if before == 0 else max(what.depth, before or 0) if what.depth else 0
        deepen = ["--unshallow"] if not depth and (bare / "shallow").exists() else [f"--depth={depth}"] if depth else []
        refs = [*([] if depth else ["--prune", "--", what.url, *_ALL]), *(["--", what.url] if depth else [])]
        refs += [_TAGS] if what.tags and depth else []
        await self._git.run(bare, "fetch", "--progress", "--no-tags", "--force", "--no-recurse-submodules", *deepen,
                            *refs, _kept(what.found))  # fmt: skip
        (bare / _DEPTH).write_text(str(depth))

    async def _into_tree(self, what: Fetch, tree: Path, origin: str, *, own: bool) -> None:
        depth = [f"--depth={what.depth}"] if what.depth else []
        refs = [] if what.depth else ["+refs/heads/*:refs/remotes/origin/*"]
        refs += [_TAGS] if what.tags or not what.depth else []
        source = _kept(what.found).partition(":")[2] if own else what.found.name or what.found.sha
        await self._git.run(tree, "fetch", "--quiet" if own else "--progress", "--no-tags", "--force",
                            "--no-recurse-submodules", *depth, "--", origin, *refs, f"+{source}:{PLACE}",
                            own=own)  # fmt: skip


def _depth_of(bare: Path) -> int | None:
    """The most that was asked for so far; 0: all of the history. None: nothing yet."""
    try:
        return int((bare / _DEPTH).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:  # torn
        raise CheckoutError(str(error)) from None


def _kept(found: Found) -> str:
    """The refspec of a commit in the cache: its ref there keeps it."""
    return f"+{found.name or found.sha}:refs/pitstop/{found.sha}"
