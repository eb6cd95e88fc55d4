"""Where asyncssh keeps its channels: every number is one, and its messages are passed on, unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asyncssh.packet import SSHPacket, SSHPacketHandler


class Everywhere(SSHPacketHandler):
    """Gives the messages of all channels to `pass_up`."""

    def __init__(self, pass_up: Callable[[bytes], None]) -> None:
        self._pass_up = pass_up

    def __getitem__(self, _number: int) -> Everywhere:
        return self

    def values(self) -> Iterable[Any]:
        """None to be closed."""
        return ()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def log_received_packet(self, *_args: Any) -> None:
        """What passes through is not logged."""

    def process_packet(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> bool:
        """A message of type 93..127."""
        self._pass_up(packet.get_full_payload())
        return True
