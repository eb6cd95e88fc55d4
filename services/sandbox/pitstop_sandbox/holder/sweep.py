"""Ending what an earlier host process left behind: holders and their sandboxes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Final

from pitstop_sandbox.holder import frames, kernel

ANSWER_SECONDS: Final = 8.0
GONE_SECONDS: Final = 5.0


def sweep(folder: Path) -> list[str]:
    """End every holder and sandbox in the job folders of `folder`. Returns the names of the folders that had one.

    Through their sockets; where nobody answers, by pid, if it is still the process that wrote it down.
    """
    if not folder.is_dir():
        return []
    return [each.name for each in sorted(folder.iterdir()) if not each.is_symlink() and sweep_one(each / "holder")]


def sweep_one(holder: Path) -> bool:
    """The same for one holder's folder. Was there anything to end?"""
    if not holder.is_dir():
        return False
    asked = _ask_to_end(holder)
    killed = _kill(holder)
    (holder / frames.SOCKET).unlink(missing_ok=True)
    return asked or killed


def is_held(holder: Path) -> bool:
    """Does a holder live here, even one that does not answer yet?"""
    try:
        fd = os.open(holder / frames.LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def held_below(root: Path) -> dict[Path, str]:
    """The folders `root/*/<folder>` in which a holder lives, and the ids of their sandboxes."""
    found = {}
    for holder in root.glob(f"*/*/holder/{frames.LOCK}"):
        folder = holder.parent.parent
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not (folder.is_symlink() or folder.parent.is_symlink()) and is_held(holder.parent):
                found[folder] = str(json.loads((holder.parent / frames.STATE).read_text())["id"])
    return found


def connect(holder: Path) -> socket.socket | None:
    """To the holder's socket, through the folder's descriptor: a socket's path is at most 107 bytes long."""
    try:
        fd = os.open(holder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(ANSWER_SECONDS)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{frames.SOCKET}")
    except (FileNotFoundError, ConnectionRefusedError, TimeoutError, BlockingIOError):
        sock.close()
        return None
    finally:
        os.close(fd)
    return sock


def _ask_to_end(holder: Path) -> bool:
    sock = connect(holder)
    if sock is None:
        return False
    with sock:
        try:
            sock.sendall(frames.encode({"op": "remove", "seq": 0}))
            while sock.recv(4096):
                pass
        except OSError:
            return False
    return True


def _kill(holder: Path) -> bool:
    try:
        state = json.loads((holder / frames.STATE).read_text())
        pids = [(int(pid), int(started)) for pid, started in state["pids"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if state.get("boot") != kernel.boot_id():
        return False
    deadline = time.monotonic() + GONE_SECONDS
    killed = [kernel.kill_exactly(pid, started) for pid, started in pids]
    while time.monotonic() < deadline and any(_lives(pid, started) for pid, started in pids):
        time.sleep(0.005)
    return any(killed)


def _lives(pid: int, started: int) -> bool:
    return kernel.start_time(pid) == started and not kernel.is_exiting(pid)
