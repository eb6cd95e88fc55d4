"""Files that are Git LFS pointers: told, and fetched where that is wanted and this host has git-lfs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Final

from pitstop_sandbox.source.git import Git

_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:[^\n]*\n)*?oid sha256:([0-9a-f]{64})\n"
)
_LARGEST: Final = 1024
"""Of a pointer, bytes."""
_SHOWN: Final = 3


async def see_to(git: Git, tree: Path, *, wanted: bool, url: str) -> None:
    """Raises CheckoutError when what is wanted cannot be fetched."""
    if not (left := await pointers(git, tree)):
        return
    if wanted and shutil.which("git-lfs"):
        git.say(f"Fetching {len(left)} Git LFS file(s)")
        lfs = ("-c", f"lfs.url={server_of(url)}", "-c", "lfs.basictransfersonly=true", "lfs")
        await git.run(tree, *lfs, "fetch", "origin", "HEAD")
        left = [name for name in left if not await asyncio.to_thread(_fill, tree, name)]
    if left:
        shown = ", ".join(left[:_SHOWN]) + (" …" if len(left) > _SHOWN else "")
        then = "this host has no git-lfs: install it there" if wanted else "`with: {lfs: true}` fetches it"
        git.say(f"::warning::{len(left)} file(s) are Git LFS pointers, not their content ({shown}); {then}")


async def pointers(git: Git, tree: Path) -> list[str]:
    """The files of the tree that an attribute gives to LFS and that are pointers still."""
    listed = await git.ask(tree, "ls-files", "-z", "--", ":(attr:filter=lfs)")
    return [name for name in os.fsdecode(listed or b"").split("\0") if name and _is_pointer(tree / name)]


def _is_pointer(file: Path) -> bool:
    return bool(_object_of(file))


def _object_of(file: Path) -> str:
    """The id in a pointer; empty when it is none."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return ""
        id = _POINTER.match(os.read(fd, _LARGEST))
        return id[1].decode() if id else ""
    finally:
        os.close(fd)


def _fill(tree: Path, name: str) -> bool:
    """Put the content in the place of a pointer. Not by `git lfs checkout`: some of its versions follow links."""
    id = _object_of(tree / name)
    kept = tree / ".git" / "lfs" / "objects" / id[:2] / id[2:4] / id
    try:
        with kept.open("rb") as content:
            mode = (tree / name).lstat().st_mode
            (tree / name).unlink()
            fd = os.open(tree / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, stat.S_IMODE(mode))
            with os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
    except FileNotFoundError:
        return False
    return True


def server_of(url: str) -> str:
    """Named by us: `.lfsconfig` of the repository must not say where the host connects to."""
    if url.startswith("https://"):
        return f"{url.rstrip('/').removesuffix('.git')}.git/info/lfs"
    return f"file://{url}" if url.startswith("/") else url
