"""What a holder keeps in its folder."""

from __future__ import annotations

import fcntl
import json
import os
import time

from pitstop_sandbox.holder.frames import LOCK, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LOCK_TRIES: Final = 5


class Taken(Exception):
    """Another holder has this folder."""


def take_lock() -> int:
    """Held as long as the holder lives: one holder a folder."""
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Somebody may just look whether it is taken.
            time.sleep(0.01)
        else:
            return fd
    raise Taken("there is a sandbox in this folder; adopt it, or remove it first")


def log_to(name: str) -> None:
    """What a holder has to say when it fails goes to a file of its sandbox, not to its host process."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for standard in (1, 2):
        os.dup2(fd, standard)
    os.close(fd)


def write_json(name: str, content: Message) -> None:
    """The whole file, or the old one."""
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, json.dumps(content).encode())
    finally:
        os.close(fd)
    os.replace(f"{name}.new", name)  # noqa: PTH105
