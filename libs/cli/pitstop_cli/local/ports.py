"""Ports that stay the same over restarts of one folder, as long as nobody else takes them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

from pitstop_cli.exits import USAGE, Failure
from pitstop_cli.paths import write_private


class Ports:
    """The remembered ports of a folder, by name. 0: not known yet."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        try:
            kept = json.loads(path.read_text())
            self._known = {str(name): int(port) for name, port in kept.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            self._known = {}

    def choose(self, name: str, wanted: int | None, option: str = "") -> int:
        """The port to use: the wanted one, else the one of last time if it is free, else a free one.

        Raises Failure when the wanted one is taken.
        """
        if wanted:
            if not is_free(wanted):
                raise Failure(
                    f"port {wanted} ({option}) is taken by another program",
                    next=f"leave {option} away to get a free port, or see who has it: ss -ltnp 'sport = :{wanted}'",
                    code=USAGE,
                )
            return wanted
        known = self._known.get(name, 0)
        if known and is_free(known):
            return known
        port = free_port()
        if known:
            self._say(f"port {known}, which {name} had before, is taken; it gets {port} now")
        return port

    def remember(self, **ports: int) -> None:
        """For the next start."""
        merged = {**self._known, **ports}
        if merged != self._known:
            self._known = merged
            write_private(self._path, json.dumps(merged) + "\n")


def is_free(port: int) -> bool:
    """Can a server listen there on loopback? Ports in TIME_WAIT count as free, ports shared with others do not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
