"""How many may stand before the door: limits on connections that have not logged in. Pure."""

from __future__ import annotations

from collections import Counter


class Doorkeeper:
    """Counts connections. `total` at once; `logins` not logged in yet, `per_address` of them from one address."""

    def __init__(self, total: int, logins: int, per_address: int) -> None:
        self._total = total
        self._logins = logins
        self._per_address = per_address
        self._waiting: Counter[str] = Counter()
        self._inside = 0

    def knock(self, address: str) -> str:
        """The limit that stops a new connection, or empty: then it is counted, until `left`."""
        if self._inside + self._waiting.total() >= self._total:
            return "connections"
        if self._waiting.total() >= self._logins:
            return "logins"
        if self._waiting[address] >= self._per_address:
            return "logins_per_address"
        self._waiting[address] += 1
        return ""

    def entered(self, address: str) -> None:
        """A connection has logged in."""
        self._leave_queue(address)
        self._inside += 1

    def left(self, address: str, *, inside: bool) -> None:
        """A counted connection is gone."""
        if inside:
            self._inside -= 1
        else:
            self._leave_queue(address)

    @property
    def count(self) -> int:
        """All connections."""
        return self._inside + self._waiting.total()

    def _leave_queue(self, address: str) -> None:
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]
