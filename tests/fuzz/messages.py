"""What clients really say (RFC 4254 and OpenSSH's additions), as a conversation in order, before it is changed."""

from __future__ import annotations

from asyncssh.packet import Boolean, Byte, String, UInt32

_MODES = String(b"\x03" + UInt32(127) + b"\x81" + UInt32(38400) + b"\0")


def opened(kind: str, number: int, *more: bytes) -> bytes:
    """CHANNEL_OPEN."""
    return Byte(90) + String(kind) + UInt32(number) + UInt32(2**21) + UInt32(2**15) + b"".join(more)


def asked(channel: int, what: str, *more: bytes) -> bytes:
    """CHANNEL_REQUEST that wants an answer."""
    return Byte(98) + UInt32(channel) + String(what) + Boolean(True) + b"".join(more)


def requested(what: str, *more: bytes) -> bytes:
    """GLOBAL_REQUEST that wants an answer."""
    return Byte(80) + String(what) + Boolean(True) + b"".join(more)


def sent(channel: int, data: bytes) -> bytes:
    """CHANNEL_DATA."""
    return Byte(94) + UInt32(channel) + String(data)


def _terminal(channel: int) -> list[bytes]:
    return [
        opened("session", channel),
        asked(channel, "auth-agent-req@openssh.com"),
        asked(channel, "x11-req", Boolean(False), String("MIT-MAGIC-COOKIE-1"), String("00" * 16), UInt32(0)),
        asked(channel, "env", String("LC_ALL"), String("C.UTF-8")),
        asked(channel, "pty-req", String("xterm"), UInt32(80), UInt32(24), UInt32(0), UInt32(0), _MODES),
        asked(channel, "shell"),
        sent(channel, b"ls\r"),
        asked(channel, "window-change", UInt32(120), UInt32(40), UInt32(0), UInt32(0)),
        asked(channel, "signal", String("INT")),
        asked(channel, "break", UInt32(500)),
        Byte(93) + UInt32(channel) + UInt32(2**20),
        asked(channel, "keepalive@openssh.com"),
        Byte(96) + UInt32(channel),
        Byte(97) + UInt32(channel),
    ]


def _command(channel: int, how: str = "exec", what: str = "cat") -> list[bytes]:
    return [
        opened("session", channel),
        asked(channel, how, String(what)),
        sent(channel, b"x" * 2000),
        Byte(96) + UInt32(channel),
        Byte(97) + UInt32(channel),
    ]


def _forwards(first: int) -> list[bytes]:
    return [
        requested("tcpip-forward", String("127.0.0.1"), UInt32(8080)),
        requested("tcpip-forward", String(""), UInt32(0)),
        requested("streamlocal-forward@openssh.com", String("/tmp/socket")),
        opened("direct-tcpip", first, String("127.0.0.1"), UInt32(80), String("127.0.0.1"), UInt32(50000)),
        opened("direct-streamlocal@openssh.com", first + 1, String("/run/x"), String(""), UInt32(0)),
        sent(first, b"GET / HTTP/1.0\r\n\r\n"),
        requested("cancel-tcpip-forward", String("127.0.0.1"), UInt32(8080)),
        requested("cancel-streamlocal-forward@openssh.com", String("/tmp/socket")),
        Byte(97) + UInt32(first),
    ]


_REFUSED: list[bytes] = [
    requested("keepalive@openssh.com"),
    requested("hostkeys-prove-00@openssh.com", String(b"\0\0\0\x0bssh-ed25519" + UInt32(32) + bytes(32))),
    requested("no-more-sessions@openssh.com"),
    opened("tun@openssh.com", 9, UInt32(1), UInt32(0x7FFFFFFF)),
    opened("x11", 9, String("127.0.0.1"), UInt32(6000)),
    opened("forwarded-tcpip", 9, String("a"), UInt32(1), String("b"), UInt32(2)),
    opened("auth-agent@openssh.com", 9),
]
_WRONG: list[bytes] = [
    Byte(81) + UInt32(8080),
    Byte(82),
    Byte(91) + UInt32(0) + UInt32(0) + UInt32(2**21) + UInt32(2**15),
    Byte(92) + UInt32(0) + UInt32(1) + String("no") + String("en"),
    Byte(95) + UInt32(0) + UInt32(1) + String("stderr of a client"),
    Byte(99) + UInt32(0),
    Byte(100) + UInt32(0),
]

CONVERSATIONS: list[list[bytes]] = [
    _terminal(0),
    _command(0),
    _command(0, "subsystem", "sftp"),
    _command(0, "exec", "scp -t ."),
    _forwards(0),
    [*_terminal(0)[:7], *_command(1), *_forwards(2), *_terminal(0)[7:]],
    [*_REFUSED, *_command(0)],
    [*_command(0)[:3], *_REFUSED],
]
WRONG: list[list[bytes]] = [[*_command(0)[:3], message, *_command(0)[3:]] for message in _WRONG]
"""Sound messages that no request was made for: each ends its connection."""
