"""What the kernel counts of a sandbox at its limits: why a process of it was killed, or could not be started."""

from __future__ import annotations

import os

from pitstop_sandbox.holder.frames import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DISK_ROOM: Final = 1 << 20
"""A disk with less room than this is full, bytes."""
_MAX_FILE: Final = 4096


class Meters:
    """`plan`: `kind`, `limit`, `path`, `line` of each; see backends/docker/meters.py."""

    def __init__(self, plan: list[Message]) -> None:
        self._counters = [each for each in plan if each["kind"] != "disk"]
        self._disks = [each["path"] for each in plan if each["kind"] == "disk"]

    def read(self) -> dict[str, int]:
        """How often so far, by kind. What cannot be read is left out."""
        found = {}
        for each in self._counters:
            try:
                with open(each["path"]) as file:  # noqa: PTH123
                    lines = dict(line.split(" ", 1) for line in file.read(_MAX_FILE).splitlines() if " " in line)
                found[each["kind"]] = int(lines[each["line"]])
            except (OSError, ValueError, KeyError):
                continue
        return found

    def hits(self, before: dict[str, int], *, failed: bool) -> list[Message]:
        """The limits that were met since `before`: `kind` and `limit` of each. `failed`: is a full disk of interest."""
        now = self.read()
        hits: list[Message] = [
            {"kind": each["kind"], "limit": each["limit"]} for each in self._counters
            if now.get(each["kind"], 0) > before.get(each["kind"], now.get(each["kind"], 0))
        ]  # fmt: skip
        if failed and any(map(_is_full, self._disks)):
            hits.append({"kind": "disk", "limit": 0})
        return hits


def _is_full(path: str) -> bool:
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < DISK_ROOM or (room.f_files > 0 and room.f_favail == 0)
