"""Where runc keeps the state of a container: found from its process 1, as paths are those of an installation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pitstop_sandbox.backends.port import BackendError

_SHIM: Final = "containerd-shim"
_DEFAULT_ROOT: Final = "/run/containerd/runc"
_SAY_SECONDS: Final = 10


def find(container: str, pid: int) -> dict[str, Any]:
    """`binary`, `root` and `id` for the command line of runc, and `process`: how it started process 1, which has the
    pid. Process 1 is the child of a shim, whose folder is the container's bundle. Raises BackendError."""
    try:
        shim = _parent(pid)
        command = Path(f"/proc/{shim}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        if _SHIM not in command:
            raise _unknown(f"process 1 is the child of {command or 'nobody'}, which is no containerd-shim")
        bundle = Path(f"/proc/{shim}/cwd").readlink()
        options = json.loads((bundle / "options.json").read_text())
        process = json.loads((bundle / "config.json").read_text())["process"]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise _unknown(f"its bundle cannot be read: {error}") from None
    name = options.get("binary_name") or "runc"
    binary = shutil.which(name)
    if binary is None:
        raise _unknown(f"the engine runs it by {name}, which is not in the PATH of this service")
    root = Path(options.get("root") or _DEFAULT_ROOT) / bundle.parent.name
    if not (root / container).is_dir():
        raise _unknown(f"{root} has no {container[:12]}")
    return {"binary": binary, "root": str(root), "id": container, "process": process}


def check(info: Mapping[str, Any], wanted: str) -> None:
    """Is the runtime, or the engine's default, one that processes can be started by? `info`: what the engine says of
    itself. Raises BackendError `runtime_unknown`."""
    known = info.get("Runtimes") or {}
    name = wanted or str(info.get("DefaultRuntime") or "runc")
    if name not in known:
        raise BackendError(
            "runtime_unknown",
            f"the engine has no runtime {name}, it has {', '.join(sorted(known))}: see its daemon.json, or set "
            "PITSTOP_DOCKER_RUNTIME to one of these",
        )
    path = str(known[name].get("path") or name)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SAY_SECONDS, check=False)
        said = done.stdout.partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if not said.startswith("runc "):
        raise BackendError(
            "runtime_unknown",
            f"the runtime {name} is not runc ({path}: {said or 'says nothing'}). Processes, terminals and the network "
            "of jobs are made by runc in namespaces of this machine; a container of gVisor or Kata has none that could "
            "be entered so, and no other way is built yet: set PITSTOP_DOCKER_RUNTIME to one that is runc",
        )


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _unknown(why: str) -> BackendError:
    text = f"the state of the container in runc is not found: {why}. This service has to run beside the engine, as root"
    return BackendError("runtime_unknown", text)


def runs_as_root() -> bool:
    """runc and the folders of the engine are root's."""
    return os.geteuid() == 0
