"""The GITHUB_* files of a step in the job folder: made fresh before it, read (bounded, unbelieving) after it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pitstop_sandbox.events import Exports
from pitstop_sandbox.steps import commands
from pitstop_sandbox.steps.environment import FILES
from pitstop_sandbox.steps.folder import Guarded, Tampered

_MAX_FILE: Final = 1024 * 1024


def prepare(job_folder: Path, script: str = "", text: str = "") -> None:
    """Fresh files, the temp folder, and the step's script. Raises Tampered or OSError."""
    with Guarded.open(job_folder) as job:
        job.folder("temp").close()
        with job.folder("github") as files:
            for name in FILES.values():
                files.empty(name)
        if script:
            with job.folder("script") as scripts:
                scripts.write(script, text.encode("utf-8", "replace"), 0o755)


def collect(job_folder: Path) -> tuple[Exports, list[str]]:
    """What the files hold now, and warnings. Nothing that lies there makes it fail."""
    warnings: list[str] = []
    data = {"env": b"", "path": b""}
    try:
        with Guarded.open(job_folder) as job, job.folder("github") as files:
            for name in data:
                try:
                    data[name] = files.read(name, _MAX_FILE) or b""
                except Tampered as error:
                    warnings.append(f"GITHUB_{name.upper()}: {error}; ignored")
    except (Tampered, OSError) as error:
        warnings.append(f"the GITHUB_* files cannot be read: {error}")
    exports, more = commands.merge(commands.parse_env(data["env"]), commands.parse_path(data["path"]))
    return exports, warnings + more
