"""What a person hears of an image that is being fetched. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SAY_EVERY: Final = 5.0
"""Seconds between two lines."""
MB: Final = 1_000_000


class Progress:
    """Of one image. Feed it what the engine says; it returns a line, now and then. `now`: seconds."""

    def __init__(self, name: str, now: float) -> None:
        self._name, self._begun, self._said = name, now, now
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def heard(self, line: Mapping[str, Any], now: float) -> str | None:
        """A line of the engine's, about one layer or all."""
        layer, detail = str(line.get("id", "")), line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and isinstance(detail, Mapping):
            self._layers[layer] = (int(detail.get("current") or 0), int(detail.get("total") or 0))
        elif line.get("status") in ("Download complete", "Pull complete", "Already exists"):
            self._done.add(layer)
        if now - self._said < SAY_EVERY:
            return None
        self._said = now
        have, whole = self._bytes()
        return f"fetching {self._name}: {have / MB:.1f} of {whole / MB:.1f} MB, {now - self._begun:.0f} s"

    def _bytes(self) -> tuple[int, int]:
        whole = sum(max(pair) for pair in self._layers.values())
        have = sum(max(pair) if layer in self._done else pair[0] for layer, pair in self._layers.items())
        return have, whole

    def first(self) -> str:
        """Before anything is heard."""
        return f"fetching {self._name}: it is not on this host"

    def last(self, reference: str, size: int, now: float) -> str:
        """When it is there. `size`: unpacked, bytes."""
        return f"fetched {self._name} in {now - self._begun:.1f} s: {size / MB:.1f} MB on disk, {reference}"


def reference(name: str, about: Mapping[str, Any]) -> str:
    """An image with its digest, by which it can be had again: of the registry it came from, else its own id."""
    if "@" in name:
        return name
    base = name.rpartition(":")[0]
    digests = [str(each) for each in about.get("RepoDigests") or ()]
    known = next((each for each in digests if each.partition("@")[0] in (base, f"docker.io/{base}")), None)
    return f"{name}@{known.partition('@')[2]}" if known else f"{name} {about['Id']}"
