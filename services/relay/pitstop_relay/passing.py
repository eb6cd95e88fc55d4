"""The short way of a message through asyncssh's transport, when it is encrypted by AES-GCM: the other file of this
service that uses private names (see `transport`).

asyncssh makes a new cipher for each packet, joins and cuts its bytes several times, and asks a dozen questions that
were answered when the client logged in. For a key that somebody types that is most of the relay's work. Whatever is
not a message of the connection layer in a session that runs goes asyncssh's own way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from typing import Any, Final

from asyncssh.connection import SSHServerConnection
from asyncssh.encryption import GCMEncryption
from asyncssh.misc import DisconnectError, ProtocolError
from asyncssh.packet import PacketDecodeError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FIRST: Final = 80
LAST: Final = 127
"""Types of the messages of the connection layer (RFC 4250 section 4.1.2)."""

_LENGTH: Final = 4
_TAG: Final = 16
_LEAST_PADDING: Final = 4
_MUCH: Final = 8192
"""Bytes of a packet that nobody types or reads line by line."""
_RANDOM: Final = 4096
"""Bytes of padding that are asked of the kernel at once."""
_SEQUENCES: Final = 0xFFFFFFFF
_PROTOCOL_ERROR: Final = 2
_WRONG: Final = (DisconnectError, PacketDecodeError, UnicodeDecodeError, IndexError)
"""What asyncssh's reading raises and does not catch: a packet cut short, or empty, or a name that is not text."""


class PassingConnection(SSHServerConnection):
    """Gives messages of the connection layer to `passed_up`, and sends them by `pass_down`."""

    _opener: _Cipher | None = None
    _sealer: _Cipher | None = None
    _padding = b""
    _held: list[bytes] | None = None
    """Packets that go out together, at the end of what the loop does now."""
    passes = True
    """False: the messages of the connection layer are asyncssh's own, as all others."""

    def passed_up(self, message: bytes) -> None:
        """One message of type 80..127 from the client."""
        raise NotImplementedError

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """asyncssh calls whatever it did not catch so. From bytes of a stranger it is only a message that is wrong."""
        error = exc_info[1] if exc_info else sys.exception()
        if isinstance(error, _WRONG):
            self._send_disconnect(_PROTOCOL_ERROR, "a message that is wrong", "en")
            self._force_close(ProtocolError(str(error)))
        else:
            super().internal_error(exc_info, error_logger)

    # -- from the client -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Bytes from the client: most often one whole packet."""
        if self._inpbuf or self._opener is None or not self._pass_one(data, self._opener):
            super().data_received(data, datatype)
            if not self._auth_complete:
                self._acknowledge()

    def _acknowledge(self) -> None:
        """Tell the client at once that its bytes are here. Until it is let in, OpenSSH's holds each small packet back
        for this (Nagle), and the kernel would wait 40 ms for an answer to send along: twice a login."""
        sock = self._transport.get_extra_info("socket") if self._transport else None
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _pass_one(self, data: bytes, opener: _Cipher) -> bool:
        """Take what is exactly one packet. False: it is not, or not by this way."""
        size = len(data) - _TAG
        if (
            int.from_bytes(data[:_LENGTH], "big") != size - _LENGTH
            or size > self._max_recv_pktlen
            or opener.encryption is not self._recv_encryption
            or self._decompressor
            or self._recv_handler != self._recv_pkthdr
        ):
            return False
        message = opener.opened(data)
        if message is None:
            return False
        self._passed(message)
        return True

    def _passed(self, message: bytes) -> None:
        self._auth_final = True
        self._recv_seq = (self._recv_seq + 1) & _SEQUENCES
        self.passed_up(message)

    def _recv_pkthdr(self) -> bool:
        """asyncssh comes here at the beginning of each packet. False: there is no whole one to go on with."""
        if self._transport is None or self._transport.is_closing():  # what came with the last one is not heard
            self._inpbuf = b""
            return False
        if self._auth_complete and self.passes and self._pass_up():
            return False
        return bool(super()._recv_pkthdr())

    def _pass_up(self) -> bool:
        """Take what is whole in the buffer. False: something there is for asyncssh to see."""
        opener = self._opener = _of(self._recv_encryption, self._opener)
        if opener is None or self._decompressor:
            return False
        buffer = memoryview(self._inpbuf)
        start = 0
        try:
            while len(buffer) - start > _LENGTH:
                end = start + _LENGTH + int.from_bytes(buffer[start : start + _LENGTH], "big") + _TAG
                if end - start > self._max_recv_pktlen:
                    return False
                if end > len(buffer):
                    return True
                message = opener.opened(buffer[start:end])
                if message is None:
                    return False
                start = end
                self._passed(message)
            return True
        finally:
            self._inpbuf = self._inpbuf[start:]

    # -- to the client ---------------------------------------------------------------------------------------------

    def pass_down(self, message: bytes) -> None:
        """Send one message of type 80..127."""
        sealer = self._sealer
        if sealer is None or sealer.encryption is not self._send_encryption:
            sealer = self._sealer = _of(self._send_encryption, None)
        if sealer is None or self._compressor or not self._runs():
            self.send_packet(message[0], message[1:])
            return
        padding = -(self._send_enchdrlen + len(message)) % self._send_blocksize
        if padding < _LEAST_PADDING:
            padding += self._send_blocksize
        if len(self._padding) < padding:
            self._padding = os.urandom(_RANDOM)
        packet = b"%c%b%b" % (padding, message, self._padding[:padding])
        self._padding = self._padding[padding:]
        self._write(sealer.sealed(packet))
        self._send_seq = (self._send_seq + 1) & _SEQUENCES
        self._rekey_bytes_sent += len(packet)

    def _write(self, packet: bytes) -> None:
        """A key's echo goes out at once. Of a download several packets come with one read of the link: one write for
        all of them spares the kernel's work, and the client's."""
        if self._held is not None:
            self._held.append(packet)
        elif len(packet) > _MUCH:
            self._held = [packet]
            asyncio.get_running_loop().call_soon(self._write_held)
        elif self._transport:
            self._transport.write(packet)

    def _write_held(self) -> None:
        held, self._held = self._held, None
        if held and self._transport:
            self._transport.writelines(held)

    def _send(self, data: bytes) -> None:
        """asyncssh sends by its own way."""
        self._write_held()
        super()._send(data)

    def _runs(self) -> bool:
        """No key exchange is under way, or due."""
        if not (self._auth_complete and self._kex_complete) or self._rekey_bytes_sent >= self._rekey_bytes:
            return False
        return not self._rekey_seconds or time.monotonic() < self._rekey_time


class _Cipher:
    """One direction's, until the next key exchange. asyncssh keeps the counter: both ways can be gone by turns."""

    def __init__(self, encryption: GCMEncryption) -> None:
        self.encryption = encryption
        self._gcm = encryption._cipher
        self._aes = AESGCM(self._gcm._key)

    def opened(self, packet: bytes | memoryview) -> bytes | None:
        """The message in a packet; None: it is for asyncssh, which sees it as if nobody had looked."""
        try:
            plain = self._aes.decrypt(self._gcm._iv, packet[_LENGTH:], packet[:_LENGTH])
        except InvalidTag:
            return None
        padding = plain[0]
        if len(plain) < padding + 2 or padding < _LEAST_PADDING or not FIRST <= plain[1] <= LAST:
            return None
        self._gcm._update_iv()
        return plain[1:-padding]

    def sealed(self, packet: bytes) -> bytes:
        """The bytes to send."""
        length = len(packet).to_bytes(_LENGTH, "big")
        sealed = length + self._aes.encrypt(self._gcm._iv, packet, length)
        self._gcm._update_iv()
        return sealed


def _of(encryption: object, known: _Cipher | None) -> _Cipher | None:
    if known is not None and known.encryption is encryption:
        return known
    return _Cipher(encryption) if isinstance(encryption, GCMEncryption) else None
