"""TCP keepalives: a client that is cut off is noticed after two minutes, also when nothing is sent."""

from __future__ import annotations

import socket
from typing import Any, Final

_AFTER: Final = 60
_EVERY: Final = 15
_TIMES: Final = 4


def probe(sock: Any) -> None:
    """Have the kernel ask the other end of a TCP connection (seconds: 60, then 4 times every 15)."""
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _AFTER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _EVERY)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _TIMES)
