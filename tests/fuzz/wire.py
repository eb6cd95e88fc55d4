"""An end of a TCP or TLS connection without a network: what is written goes to the other end in the next turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pitstop_relay.identity import HOST_NAME

CERTIFICATE = {"subjectAltName": (("DNS", HOST_NAME),)}


class Wire(asyncio.Transport):
    """Given to a protocol as its transport. `heard` gets what that protocol writes."""

    def __init__(self, heard: Callable[[bytes], None] = lambda _data: None, address: str = "203.0.113.7") -> None:
        super().__init__({"peername": (address, 50000), "sockname": ("203.0.113.1", 22), "peercert": CERTIFICATE})
        self._loop = asyncio.get_running_loop()
        self._heard = heard
        self._protocol: asyncio.Protocol
        self._closing = False
        self.paused = False
        self.gone = asyncio.Event()

    def joined(self, protocol: asyncio.Protocol) -> None:
        """The connection stands."""
        self._protocol = protocol
        protocol.connection_made(self)

    def give(self, data: bytes) -> None:
        """Bytes from the other end."""
        if not self._closing:
            self._protocol.data_received(data)

    def end(self) -> None:
        """The other end closes."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    # -- what a protocol calls -------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def write(self, data: Any) -> None:
        if not self._closing:
            self._heard(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lost)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Everything is taken at once."""

    def _lost(self) -> None:
        self._protocol.connection_lost(None)
        self.gone.set()
