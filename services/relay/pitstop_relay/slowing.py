"""Slower answers to whom a source address gives nothing but failures. Pure: time is an argument."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

FREE: Final = 20.0
"""Failures at once that cost nothing: an agent may hold as many keys as one connection may try."""
FORGET_EVERY: Final = 6.0
"""Seconds after which one failure is forgotten."""
FIRST: Final = 0.1
"""The delay after one failure too many, seconds. It doubles with each further one."""
LONGEST: Final = 5.0
ADDRESSES: Final = 10_000
"""That are remembered: the one that failed longest ago is forgotten first."""
_DOUBLINGS: Final = 10
_V6_NETWORK: Final = 64


class Slowing:
    """Failures by address. Of IPv6, the network of 64 bits counts as one."""

    def __init__(self, addresses: int = ADDRESSES) -> None:
        self._most = addresses
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Network -> how many, and when it was."""

    def failed(self, address: str, now: float) -> float:
        """One more failure; seconds to wait with the answer to it. `now`: seconds of any one clock."""
        network = network_of(address)
        count, since = self._failures.pop(network, (0.0, now))
        count = max(0.0, count - max(0.0, now - since) / FORGET_EVERY) + 1
        self._failures[network] = (count, max(now, since))
        if len(self._failures) > self._most:
            self._failures.popitem(last=False)
        over = count - FREE
        return 0.0 if over <= 0 else min(LONGEST, FIRST * 2 ** min(over - 1, _DOUBLINGS))

    def __len__(self) -> int:
        return len(self._failures)


def network_of(address: str) -> str:
    """What counts as one source."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _V6_NETWORK), strict=False))
