"""The container of a sandbox, as the engine is asked for it, and the labels it is found by. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_sandbox.backends.docker.image import Image
from pitstop_sandbox.backends.port import SandboxSpec

SANDBOX: Final = "dev.pitstop.sandbox"
FOLDER: Final = "dev.pitstop.folder"
ROOT: Final = "dev.pitstop.root"
LOOK: Final = "dev.pitstop.look"
NAMED: Final = "pitstop-"
LIFE: Final = "life"
"""The folder of a job's folder that holds the container's lifeline, which is shown inside."""
LINE: Final = "line"
_INSIDE: Final = "/opt/pitstop/life"
FIRST_PROCESS: Final = f"exec 3<{_INSIDE}/{LINE} </dev/null >/dev/null 2>&1; while read -r line <&3; do :; done"
"""The main process of a container, root's: nobody but root can end it. It reads a fifo that only root may open, whose
other end only the holder has: the container ends with its holder, however that went. Whoever is root inside (by sudo)
can keep the fifo open, and so its own container alive: the host then finds it by its labels."""
GIB: Final = 2**30


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a host gives its containers. Bounds where a job has none of its own; bytes, cores."""

    image: str = ""
    """Of jobs that name none."""
    cpus: float = 2
    memory: int = 4 * GIB
    processes: int = 1024
    """What jobs are expected to ask for."""
    disk: int = 10 * GIB
    """Of all files but the job's folder, where the engine's storage can bound them."""
    runtime: str = ""
    """As the engine calls it; empty: its default."""


def folder_labels(folder: Path) -> dict[str, str]:
    """By which the container of a job's folder is found."""
    return {FOLDER: str(folder), ROOT: str(folder.parent.parent)}


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be known of an engine. `cores`: of its machine; it refuses more."""

    cores: int
    bounds_disk: bool
    """Its storage can bound what a container writes."""
    live_restore: bool
    """Containers go on while it is restarted; those that are to remove themselves it would remove then, running."""


def config(
    spec: SandboxSpec, image: Image, settings: Settings, engine: Traits, *, resolvers: Sequence[str] = ()
) -> dict[str, Any]:
    """The body of `POST /containers/create`. Its network is made by us (cables.py); `resolvers`: the name servers that
    are reached by it."""
    limits = spec.limits
    memory = memory_of(spec, settings)
    host: dict[str, Any] = {
        "Init": True,
        "AutoRemove": not engine.live_restore,
        "NetworkMode": "none",
        "Dns": list(resolvers),
        "ExtraHosts": [f"{spec.hostname}:127.0.0.1"],
        "IpcMode": "private",
        "LogConfig": {"Type": "none"},
        "Mounts": mounts(spec),
        "NanoCpus": int(min(limits.cpus or settings.cpus, engine.cores) * 1e9),
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": limits.processes or None,
        "SecurityOpt": [] if image.sudo else ["no-new-privileges"],
    }
    if engine.bounds_disk and (disk := limits.disk or settings.disk):
        host["StorageOpt"] = {"size": str(disk)}
    if settings.runtime:
        host["Runtime"] = settings.runtime
    return {
        "Image": image.id,
        "Entrypoint": ["/bin/sh", "-c", FIRST_PROCESS],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": spec.hostname,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {SANDBOX: spec.id, **folder_labels(spec.folder)},
        "HostConfig": host,
    }


def memory_of(spec: SandboxSpec, settings: Settings) -> int:
    """Of all its processes, bytes; swap is in it."""
    return spec.limits.memory or settings.memory


def mounts(spec: SandboxSpec) -> list[dict[str, Any]]:
    """What a container shows of its job's folder."""
    places = (("work", spec.workspace, False), ("job", "/run/pitstop", False), ("bin", "/opt/pitstop/bin", True),
              (LIFE, _INSIDE, True))  # fmt: skip
    return [
        {"Type": "bind", "Source": str(spec.folder / name), "Target": target, "ReadOnly": read_only}
        for name, target, read_only in places
    ]


def ours(root: Path, name: str, labels: Mapping[str, str]) -> tuple[Path, str] | None:
    """The folder and the id of a container that a host made, whose folder is `root`; None: it is not ours, whatever it
    looks like. Labels alone prove nothing: an image has them, too, once a job's container was committed to it."""
    folder, id = Path(labels.get(FOLDER, "")), labels.get(SANDBOX, "")
    inside = labels.get(ROOT) == str(root) == str(folder.parent.parent) and ".." not in folder.parts
    return (folder, id) if inside and id and name.startswith(f"{NAMED}{id}-") else None


def look(image: str, root: Path | None) -> dict[str, Any]:
    """A container that is never started: to look into its image. `root`: the folder of the host whose it is."""
    return {"Image": image, "Entrypoint": ["/bin/sh"], "Cmd": [], "Labels": {LOOK: "", ROOT: str(root or "")},
            "HostConfig": {"NetworkMode": "none"}}  # fmt: skip


def looks(root: Path, name: str, labels: Mapping[str, str]) -> bool:
    """Is it one of these?"""
    return LOOK in labels and labels.get(ROOT) == str(root) and name.startswith(f"{NAMED}look-")


def traits(info: dict[str, Any], *, cores: int) -> Traits:
    """`info`: what the engine says of itself."""
    driver, status = info.get("Driver"), dict(each for each in info.get("DriverStatus") or () if len(each) == 2)
    bounds = driver in ("btrfs", "zfs") or (driver == "overlay2" and status.get("Backing Filesystem") == "xfs")
    return Traits(cores=cores, bounds_disk=bounds, live_restore=bool(info.get("LiveRestoreEnabled")))
