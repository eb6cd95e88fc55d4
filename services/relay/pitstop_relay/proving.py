"""Host keys that clients may learn (OpenSSH's UpdateHostKeys): announced after the login, proved when asked for.

A client asks by a global request, `hostkeys-prove-00@openssh.com`, in the middle of the messages that pass through,
and answers of global requests have no name: they come in the order of the requests (RFC 4254 section 4). So the request
goes on to the sandbox, which refuses it in its turn, and the proof is put in the place of that refusal. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from asyncssh.packet import Byte, PacketDecodeError, SSHPacket

GLOBAL_REQUEST: Final = 80
ANSWERS: Final = frozenset({81, 82})
"""REQUEST_SUCCESS and REQUEST_FAILURE."""
_FAILURE: Final = 82
_SUCCESS: Final = 81
PROVE: Final = b"hostkeys-prove-00@openssh.com"
MAX_AWAITED: Final = 1024
"""Requests whose answers are on their way. Who asks for more at once gets no proof."""


class Proving:
    """The global requests of one connection. `prove` takes the key blobs that a client asks for and gives their
    signatures, empty when it will not; it is asked once."""

    def __init__(self, prove: Callable[[list[bytes]], bytes]) -> None:
        self._prove: Callable[[list[bytes]], bytes] | None = prove
        self._awaited: deque[bytes] = deque()

    def asked(self, message: bytes) -> None:
        """A GLOBAL_REQUEST of the client, which goes on to the sandbox."""
        try:
            packet = SSHPacket(message[1:])
            name, wants_reply = packet.get_string(), packet.get_boolean()
            if not wants_reply or self._prove is None:
                if wants_reply and self._awaited:
                    self._awaited.append(b"")
                return
            self._awaited.append(self.proof(packet) if name == PROVE else b"")
        except PacketDecodeError:  # the sandbox ends the connection for it
            return
        if len(self._awaited) > MAX_AWAITED:
            self._prove = None
            self._awaited.clear()

    def answered(self, message: bytes) -> bytes:
        """An answer of the sandbox; what to send in its place."""
        proof = self._awaited.popleft() if self._awaited else b""
        return Byte(_SUCCESS) + proof if proof and message[0] == _FAILURE else message

    def proof(self, packet: SSHPacket) -> bytes:
        """The signatures that the rest of a request asks for; empty: none. Raises PacketDecodeError."""
        prove, self._prove = self._prove, None
        blobs = []
        while packet:
            blobs.append(packet.get_string())
        return prove(blobs) if prove is not None else b""
