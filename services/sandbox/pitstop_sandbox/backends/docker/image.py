"""What an image has that a job stands on: its environment, its shells, sudo, and who the job is in it. Pure."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from pitstop_sandbox.backends.docker.pulling import reference

FIRST_ID: Final = 1001
"""Of a user that is added; the first that is free from here on."""
LAST_ID: Final = 60_000
SUDOERS: Final = "etc/sudoers.d/pitstop"
_SHELLS: Final = (("bash", ("/bin/bash", "/usr/bin/bash")), ("sh", ("/bin/sh",)))
_SUDO: Final = ("/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo")
PATHS: Final = (*(path for _, paths in _SHELLS for path in paths), *_SUDO, "/home")
"""Looked for in an image, with the home of its user."""


class User(msgspec.Struct, frozen=True):
    """Who runs the steps. `groups`: beside `gid`."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """`name` as it was asked for, `id` its digest, `reference` its name with what it can be had by again. `files`: a
    tar to be unpacked in each container of it."""

    name: str
    id: str
    reference: str
    env: Mapping[str, str]
    shells: tuple[str, ...]
    sudo: bool
    user: User
    files: bytes


class Unusable(ValueError):
    """No job can run in this image. The text says why, and what to do."""


def full_name(name: str) -> str:
    """With a tag, as the engine wants it: without one it would fetch every tag there is."""
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"


def describe(
    name: str, about: Mapping[str, Any], passwd: str, group: str, there: Collection[str], *, user: str, home: str
) -> Image:
    """`about`: as the engine inspects it. `there`: those of PATHS and of `home` that it has. Raises Unusable."""
    if "/bin/sh" not in there:
        raise Unusable(f"the image {name} has no /bin/sh, which every job needs: add one (busybox will do)")
    entries, sudo = [], any(path in there for path in _SUDO)
    found = _known(user, passwd, group)
    if found is None:
        found = _free(user, passwd, group)
        # `*`: no password. With an `x` sudo would look for a line in /etc/shadow.
        line = f"{user}:*:{found.uid}:{found.gid}:{user}:{home}:{_login(there)}\n"
        entries += [
            ("etc/passwd", 0o644, _with(passwd, line)),
            ("etc/group", 0o644, _with(group, f"{user}:x:{found.gid}:\n")),
        ]
    elif found.uid == 0:
        raise Unusable(f"the user {user} of the image {name} is root: steps run as a user without privileges. Give "
                       f"{user} a uid of its own, or leave the user out: then it is added")  # fmt: skip
    if sudo:
        entries.append((SUDOERS, 0o440, f"{user} ALL=(ALL:ALL) NOPASSWD: ALL\n"))
    folders = [] if home in there else [(home.strip("/"), 0o755, found)]
    config = about.get("Config") or {}
    env = dict(each.split("=", 1) for each in config.get("Env") or () if "=" in each)
    return Image(
        name=name, id=str(about["Id"]), reference=reference(name, about), env=env, shells=_shells(there), sudo=sudo,
        user=found, files=_tar(entries, folders, "/home" in there),
    )  # fmt: skip


def _shells(there: Collection[str]) -> tuple[str, ...]:
    firsts = (next((path for path in paths if path in there), "") for _, paths in _SHELLS)
    return tuple(path for path in firsts if path)


def _login(there: Collection[str]) -> str:
    return next(iter(_shells(there)))


def _lines(text: str, fields: int) -> list[list[str]]:
    return [parts for line in text.splitlines() if len(parts := line.split(":")) >= fields]


def _known(name: str, passwd: str, group: str) -> User | None:
    for parts in _lines(passwd, 4):
        if parts[0] == name and parts[2].isdigit() and parts[3].isdigit():
            more = [int(each[2]) for each in _lines(group, 4) if name in each[3].split(",") and each[2].isdigit()]
            gid = int(parts[3])
            return User(name, int(parts[2]), gid, tuple(sorted({each for each in more if each != gid})))
    return None


def _free(name: str, passwd: str, group: str) -> User:
    users = {parts[2] for parts in _lines(passwd, 3)}
    groups = {parts[2] for parts in _lines(group, 3)}
    for number in range(FIRST_ID, LAST_ID):
        if str(number) not in users | groups:
            return User(name, number, number)
    raise Unusable(f"no user id from {FIRST_ID} to {LAST_ID} is free in this image")


def _with(text: str, line: str) -> str:
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}"


def _tar(files: Sequence[tuple[str, int, str]], folders: Sequence[tuple[str, int, User]], has_home: bool) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, mode, owner in folders:
            if not has_home and name.startswith("home/"):
                archive.addfile(_member("home", 0o755, kind=tarfile.DIRTYPE))
            archive.addfile(_member(name, mode, kind=tarfile.DIRTYPE, owner=owner))
        for name, mode, text in files:
            data = text.encode()
            archive.addfile(_member(name, mode, size=len(data)), io.BytesIO(data))
    return made.getvalue()


def _member(
    name: str, mode: int, *, kind: bytes = tarfile.REGTYPE, owner: User | None = None, size: int = 0
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.type, member.size = mode, kind, size
    member.uid, member.gid = (owner.uid, owner.gid) if owner else (0, 0)
    return member
