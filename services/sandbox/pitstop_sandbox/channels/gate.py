"""What of SSH's connection layer is served here, decided before asyncssh sees a message. Pure.

asyncssh finds its handlers by names that the client sends, and some of them open sockets, listeners and files of this
host. Only what is named here gets through, and what opens anything is answered by `forwards`, inside the sandbox.
"""

from __future__ import annotations

from typing import Final

import msgspec
from asyncssh.packet import Boolean, Byte, PacketDecodeError, SSHPacket, String, UInt32

from pitstop_sandbox.channels.pace import OPENS_A_SECOND, Pace
from pitstop_sandbox.channels.rules import Rules

GLOBAL_REQUEST: Final = 80
CHANNEL_OPEN: Final = 90
CHANNEL_OPEN_FAILURE: Final = 92
CHANNEL_DATA: Final = 94
CHANNEL_REQUEST: Final = 98
LAST: Final = 127

_PROHIBITED: Final = 1
_SHORTAGE: Final = 4
_KEEPALIVE: Final = b"keepalive@openssh.com"
_LISTEN: Final = frozenset({b"tcpip-forward", b"streamlocal-forward@openssh.com"})
_UNLISTEN: Final = frozenset({b"cancel-tcpip-forward", b"cancel-streamlocal-forward@openssh.com"})
_FORWARDS: Final = frozenset({b"direct-tcpip", b"direct-streamlocal@openssh.com"})
NOBODY: Final = "refused@pitstop"
"""A global request that no handler has. The refused are renamed to it: replies have no name, so they must come in the
order of the requests, which is asyncssh's to keep."""

MAX_CHANNELS: Final = 64
"""Open at once in one connection."""
_WIDE_CHANNELS: Final = 8
_WIDE: Final = 2 * 1024 * 1024
_NARROW: Final = 256 * 1024
MAX_ENV: Final = 256
"""`env` requests in one connection."""
MAX_ENV_BYTES: Final = 64 * 1024
"""Of all `env` requests in one connection."""


def window(channels: int) -> int:
    """What a client may send on a new channel before it is read, bytes, when so many are open: much on the first few,
    so that a connection over which nothing is read costs 30 MiB at most."""
    return _WIDE if channels < _WIDE_CHANNELS else _NARROW


class Broken(Exception):
    """The client broke the protocol; its connection ends."""


class Pass(msgspec.Struct, frozen=True):
    """Hand the message on, or another one in its place."""

    instead: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    """Do not hand it on; send this back."""

    message: bytes


_PASS: Final = Pass()


class Gate:
    """Judges the messages of one connection in their order. `refused` is the list of what was refused without room for
    a text in the protocol, for its owner to tell."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._env = 0
        self._env_bytes = 0
        self._pace = Pace()
        self.refused: list[str] = []

    def judge(self, message: bytes, channels: int, now: float) -> Pass | Answer:
        """What to do with a message when `channels` are open. `now`: seconds of any one clock. Raises Broken."""
        if not message or not GLOBAL_REQUEST <= message[0] <= LAST:
            raise Broken("not a message of the connection layer")
        try:
            if message[0] == CHANNEL_DATA:
                return _PASS
            if message[0] == GLOBAL_REQUEST:
                return self._global_request(SSHPacket(message[1:]), now)
            if message[0] == CHANNEL_OPEN:
                return self._open(SSHPacket(message[1:]), channels, now)
            if message[0] == CHANNEL_REQUEST:
                self._count(SSHPacket(message[1:]), len(message))
        except PacketDecodeError:
            raise Broken("a message that is cut short") from None
        return _PASS

    def _count(self, packet: SSHPacket, size: int) -> None:
        packet.get_uint32()
        if packet.get_string() != b"env":
            return
        self._env += 1
        self._env_bytes += size
        if self._env > MAX_ENV or self._env_bytes > MAX_ENV_BYTES:
            raise Broken("too many environment variables")

    def _global_request(self, packet: SSHPacket, now: float) -> Pass:
        name, wants_reply = packet.get_string(), packet.get_boolean()
        if name == _KEEPALIVE:
            return _PASS
        if not self._pace.take(now):
            raise Broken(f"more than {OPENS_A_SECOND} requests a second")
        if name in _UNLISTEN:
            return _PASS
        if name in _LISTEN:
            fault = self._rules.fault("forwarding")
            if not fault:
                return _PASS
            self._tell(fault)
        return Pass(Byte(GLOBAL_REQUEST) + String(NOBODY) + Boolean(wants_reply))

    def _open(self, packet: SSHPacket, channels: int, now: float) -> Pass | Answer:
        kind, sender = packet.get_string(), packet.get_uint32()
        if kind != b"session" and kind not in _FORWARDS:
            return _refusal(sender, _PROHIBITED, "this kind of channel is not supported")
        if kind in _FORWARDS and (fault := self._rules.fault("forwarding")):
            return _refusal(sender, _PROHIBITED, fault)
        if channels >= MAX_CHANNELS:
            return _refusal(sender, _SHORTAGE, f"{MAX_CHANNELS} channels are open in this connection")
        if not self._pace.take(now):
            return _refusal(sender, _SHORTAGE, f"more than {OPENS_A_SECOND} channels a second are being opened")
        return _PASS

    def _tell(self, text: str) -> None:
        if text not in self.refused:
            self.refused.append(text)


def _refusal(channel: int, code: int, reason: str) -> Answer:
    text = String(f"pitstop: {reason}")
    return Answer(Byte(CHANNEL_OPEN_FAILURE) + UInt32(channel) + UInt32(code) + text + String("en"))
