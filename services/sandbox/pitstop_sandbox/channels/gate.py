"""What of SSH's connection layer is served here, decided before asyncssh sees a message. Pure.

asyncssh finds its handlers by names that the client sends, and some of them open sockets, listeners and files of this
host. Only what is named here gets through: session channels and keepalives.
"""

from __future__ import annotations

from typing import Final

import msgspec
from asyncssh.packet import Byte, PacketDecodeError, SSHPacket, String, UInt32

GLOBAL_REQUEST: Final = 80
REQUEST_FAILURE: Final = 82
CHANNEL_OPEN: Final = 90
CHANNEL_OPEN_FAILURE: Final = 92
CHANNEL_DATA: Final = 94
CHANNEL_REQUEST: Final = 98
LAST: Final = 127

_PROHIBITED: Final = 1
_SHORTAGE: Final = 4
_KEEPALIVE: Final = b"keepalive@openssh.com"

MAX_CHANNELS: Final = 64
"""Open at once in one connection."""
MAX_ENV: Final = 256
"""`env` requests in one connection."""
MAX_ENV_BYTES: Final = 64 * 1024
"""Of all `env` requests in one connection."""

_REFUSED: Final = {
    b"direct-tcpip": "port forwarding (-L, -D, -W) is not supported yet",
    b"direct-streamlocal@openssh.com": "forwarding of unix sockets is not supported yet",
    b"tun@openssh.com": "tunnel devices are not supported",
}

NOT_YET: Final = {
    "sftp": "pitstop: sftp is not supported yet. Copy with `scp -O` when the sandbox has scp, or with\n"
    "  ssh JOB@HOST 'cat >FILE' <FILE     ssh JOB@HOST 'cat FILE' >FILE\n",
}
"""Subsystems that are refused in words, by name."""


class Broken(Exception):
    """The client broke the protocol; its connection ends."""


class Pass(msgspec.Struct, frozen=True):
    """Hand the message on."""


class Answer(msgspec.Struct, frozen=True):
    """Do not hand it on; send this back (nothing when empty)."""

    message: bytes = b""


_PASS: Final = Pass()


class Gate:
    """Judges the messages of one connection in their order."""

    def __init__(self) -> None:
        self._env = 0
        self._env_bytes = 0

    def judge(self, message: bytes, channels: int) -> Pass | Answer:
        """What to do with a message when `channels` are open. Raises Broken."""
        if not message or not GLOBAL_REQUEST <= message[0] <= LAST:
            raise Broken("not a message of the connection layer")
        try:
            if message[0] == CHANNEL_DATA:
                return _PASS
            if message[0] == GLOBAL_REQUEST:
                return _global_request(SSHPacket(message[1:]))
            if message[0] == CHANNEL_OPEN:
                return _open(SSHPacket(message[1:]), channels)
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


def _global_request(packet: SSHPacket) -> Pass | Answer:
    name, wants_reply = packet.get_string(), packet.get_boolean()
    if name == _KEEPALIVE:
        return _PASS
    return Answer(Byte(REQUEST_FAILURE) if wants_reply else b"")


def _open(packet: SSHPacket, channels: int) -> Pass | Answer:
    kind, sender = packet.get_string(), packet.get_uint32()
    if kind != b"session":
        return Answer(_refusal(sender, _PROHIBITED, _REFUSED.get(kind, "this kind of channel is not supported")))
    if channels >= MAX_CHANNELS:
        return Answer(_refusal(sender, _SHORTAGE, f"{MAX_CHANNELS} channels are open in this connection"))
    return _PASS


def _refusal(channel: int, code: int, reason: str) -> bytes:
    text = String(f"pitstop: {reason}")
    return Byte(CHANNEL_OPEN_FAILURE) + UInt32(channel) + UInt32(code) + text + String("en")
