"""Folders that hostile code wrote: given away and removed without following a link, however deep and odd they are."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a tree that nobody writes any more. No error when it is not there. Never leaves the tree by a link,
    needs no stack for its depth, and opens folders their owner has closed."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove_folder(parent, path.name)
    finally:
        os.close(parent)


def _remove_folder(parent: int, name: str) -> None:
    """Folders are moved up beside the top one as they are found, so that no path and no stack grows."""
    moved = 0
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for entry, is_folder in _entries(parent, current):
            if is_folder:
                moved += 1
                aside = f".{name}.{os.getpid()}.{moved}"
                _move(parent, current, entry, aside)
                waiting.append(aside)
        os.rmdir(current, dir_fd=parent)


def _open(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with contextlib.suppress(PermissionError):
        return os.open(name, flags, dir_fd=parent)
    os.chmod(name, stat.S_IRWXU, dir_fd=parent)
    return os.open(name, flags, dir_fd=parent)


def _entries(parent: int, name: str) -> list[tuple[str, bool]]:
    """What is in a folder, after its files are removed: so the folders."""
    fd = _open(parent, name)
    try:
        os.fchmod(fd, stat.S_IRWXU)
        folders = []
        with os.scandir(fd) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_folder in listed:
            if is_folder:
                folders.append((entry, True))
            else:
                os.unlink(entry, dir_fd=fd)
        return folders
    finally:
        os.close(fd)


def _move(parent: int, current: str, entry: str, aside: str) -> None:
    fd = _open(parent, current)
    try:
        _close_folder = _open(fd, entry)
        os.fchmod(_close_folder, stat.S_IRWXU)
        os.close(_close_folder)
        os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=parent)
    finally:
        os.close(fd)


def give_tree(folder: Path, path: Path, uid: int, gid: int) -> None:
    """Make the user the owner of `path` (below `folder`) and of all in it. Raises OSError
    if a part of the way is a link."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *way, name = path.relative_to(folder).parts
        for part in way:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = deeper
        _give(fd, name, uid, gid)
    finally:
        os.close(fd)


def _give(parent: int, name: str, uid: int, gid: int) -> None:
    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return
    for _, folders, files, fd in os.fwalk(name, dir_fd=parent, follow_symlinks=False):
        for entry in (*folders, *files):
            os.chown(entry, uid, gid, dir_fd=fd, follow_symlinks=False)
