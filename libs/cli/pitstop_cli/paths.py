"""Where things lie on this machine."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of `pitstop up` when none is named: PITSTOP_DIR, XDG_STATE_HOME/pitstop, ~/.local/state/pitstop."""
    named = environ.get("PITSTOP_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pitstop"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    temporary.rename(path)


def owner_name(environ: Mapping[str, str] = os.environ) -> str:
    """Who starts a system: PITSTOP_ACTOR, else the user of the operating system."""
    named = environ.get("PITSTOP_ACTOR", "")
    return named if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named) else os_actor()


def os_actor() -> str:
    """The operating system's user name as one subject token."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or "user"
