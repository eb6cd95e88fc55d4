"""What a namespace sandbox sees of the host: a plan for bubblewrap. Pure but for looks at which paths exist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pitstop_sandbox.backends.port import SandboxSpec

INSIDE_UID: Final = 1000
TMP_BYTES: Final = 4 * 2**30
SHM_BYTES: Final = 2**30
SMALL_TMPFS_BYTES: Final = 64 * 2**20
FOLDERS: Final = ("work", "job", "bin", "home")
"""Of a job's folder, shown inside; `home` is the backend's own."""

_ISOLATION: Final = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
    "--disable-userns", "--as-pid-1", "--cap-drop", "ALL", "--clearenv",
    "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID),
)  # fmt: skip
_ETC_FOLDERS: Final = (
    "alternatives", "crypto-policies", "fonts", "java", "perl", "pki/ca-trust", "pki/tls/certs", "ssl/certs",
)  # fmt: skip
_ETC_FILES: Final = (
    "debian_version", "ld.so.cache", "ld.so.conf", "localtime", "magic", "mime.types", "os-release", "protocols",
    "services", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
"""Nothing that holds a secret, an account, a mount or an address of the host."""


def plan(spec: SandboxSpec, *, read_only: Sequence[str], resolv_conf: str) -> dict[str, Any]:
    """Arguments, binds and files for the holder. `read_only`: further paths of the host, at the same place inside."""
    home = f"/home/{spec.user}"
    return {
        "head": [*_ISOLATION, "--hostname", spec.hostname, *_system(), *_private(spec, home)],
        "binds": [
            *([path, path, "--ro-bind"] for path in read_only if os.path.lexists(path)),
            [str(spec.folder / "home"), home, "--bind"],
            [str(spec.folder / "work"), spec.workspace, "--bind"],
            [str(spec.folder / "job"), "/run/pitstop", "--bind"],
            [str(spec.folder / "bin"), "/opt/pitstop/bin", "--ro-bind"],
        ],
        "copies": [f"/etc/{name}" for name in _ETC_FILES if Path("/etc", name).is_file()],
        "data": _etc(spec, home, resolv_conf),
        "tail": ["--remount-ro", "/dev", "--remount-ro", "/run", "--remount-ro", "/", "--chdir", "/"],
    }


def _system() -> Iterator[str]:
    """/usr, and the folders beside it that are links into it on most systems."""
    yield from ("--ro-bind", "/usr", "/usr")
    yield from ("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl")
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    for name in _ETC_FOLDERS:
        if Path("/etc", name).is_dir():
            yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")


def _private(spec: SandboxSpec, home: str) -> Iterator[str]:
    tmp = str(spec.limits.memory or TMP_BYTES)
    yield from ("--proc", "/proc", "--dev", "/dev")
    yield from ("--perms", "1777", "--size", str(min(SHM_BYTES, int(tmp))), "--tmpfs", "/dev/shm")
    yield from ("--perms", "1777", "--size", tmp, "--tmpfs", "/tmp")
    yield from ("--perms", "1777", "--size", tmp, "--tmpfs", "/var/tmp")
    yield from ("--perms", "0755", "--size", str(SMALL_TMPFS_BYTES), "--tmpfs", "/run")
    yield from ("--symlink", "../run", "/var/run", "--symlink", "../run/lock", "/var/lock")
    yield from ("--dir", "/var/lib", "--dir", "/var/cache", "--dir", "/var/log", "--dir", "/run/lock")
    yield from ("--dir", "/opt", "--dir", "/mnt", "--dir", "/srv", "--dir", "/root", "--dir", home)


def _etc(spec: SandboxSpec, home: str, resolv_conf: str) -> dict[str, str]:
    user, uid = spec.user, INSIDE_UID
    return {
        "/etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"{user}:x:{uid}:{uid}:{user}:{home}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "/etc/group": f"root:x:0:\ntty:x:5:\n{user}:x:{uid}:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 localhost {spec.hostname}\n::1 localhost ip6-localhost ip6-loopback\n",
        "/etc/hostname": f"{spec.hostname}\n",
        "/etc/host.conf": "multi on\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
        "networks: files\nprotocols: files\nservices: files\n",
        "/etc/resolv.conf": resolv_conf,
        "/etc/shells": "/bin/sh\n/bin/bash\n",
    }


def shells() -> tuple[str, ...]:
    """Full paths inside. The programs are the host's own, and cannot be changed from inside."""
    found = []
    for name in ("bash", "sh"):
        places = (f"{folder}/{name}" for folder in ("/usr/bin", "/bin"))
        found += [place for place in places if os.access(place, os.X_OK)][:1]
    return tuple(found)
