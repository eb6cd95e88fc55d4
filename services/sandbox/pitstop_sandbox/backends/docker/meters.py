"""Where the kernel counts that a container came to its limits: read by its holder (holder/meters.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pitstop_sandbox.backends.docker.container import Settings, memory_of
from pitstop_sandbox.backends.port import SandboxSpec

_FILES: Final = {
    "memory": (("memory.events", "oom_kill"), ("memory.oom_control", "oom_kill")),
    "processes": (("pids.events", "max"), ("pids.events", "max")),
}
"""The file and its line, in cgroups of version 2 and of version 1."""
_CONTROLLERS: Final = {"memory": "memory", "processes": "pids"}


def of(spec: SandboxSpec, settings: Settings, pid: int) -> list[dict[str, Any]]:
    """`kind`, `limit`, `path` and the `line` that counts; kind disk: `path` is on it. `pid`: of the container's
    process 1. Without those that this kernel does not count."""
    limits = {"memory": memory_of(spec, settings), "processes": spec.limits.processes}
    try:
        own = Path(f"/proc/{pid}/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        own = mounts = ""
    found = []
    for kind, limit in limits.items():
        for version, (file, line) in zip((2, 1), _FILES[kind], strict=True):
            folder = cgroup(own, mounts, _CONTROLLERS[kind], version)
            if folder is not None and (folder / file).exists():
                found.append({"kind": kind, "limit": limit, "path": str(folder / file), "line": line})
                break
    return [*found, *({"kind": "disk", "limit": 0, "path": str(path), "line": ""}
                      for path in (spec.folder / "work", f"/proc/{pid}/root"))]  # fmt: skip


def cgroup(own: str, mounts: str, controller: str, version: int) -> Path | None:
    """The folder of a process's cgroup. `own`: /proc/<pid>/cgroup, `mounts`: /proc/self/mountinfo."""
    for line in own.splitlines():
        number, names, path = line.split(":", 2)
        if controller in names.split(",") if version == 1 else (number, names) == ("0", ""):
            break
    else:
        return None
    for mount in mounts.splitlines():
        before, _, after = mount.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, place = before.split()[3:5]
        right = kind == "cgroup2" if version == 2 else kind == "cgroup" and controller in options.split(",")
        if right and (path == root or path.startswith(root.rstrip("/") + "/")):
            return Path(place) / path[len(root) :].lstrip("/")
    return None
