"""What JetStream answers to a publish."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from pitstop_common.errors import PitstopError, Unavailable, WrongLastSequence
from pitstop_common.wire import Letter

_WRONG_LAST: Final = frozenset({10071, 10164})
_NO_ROOM: Final = frozenset({10023, 10028, 10047, 10077})
"""The account's, the server's or the stream's storage is full: until somebody makes room, or something is dropped."""
PASSING: Final = frozenset({10009, 10041, 10118, 10158})
"""In a cluster: not the leader any more, no quorum, offline; and the same id is on its way already, as after a retry of
what nobody has answered yet."""


class Ack(NamedTuple):
    """The server's word that a message is stored."""

    stream: str
    seq: int
    duplicate: bool


class Refused(PitstopError):
    """JetStream refused a message for good. `number` is the server's error code."""

    code = "refused"

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"JetStream refused the message ({number}): {text}")
        self.number = number


class _PubError(msgspec.Struct):
    err_code: int = 0
    description: str = ""
    code: int = 0


class _PubAck(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _PubError | None = None


_decode_ack = msgspec.json.Decoder(_PubAck).decode


def read_ack(msg: Letter) -> Ack | PitstopError:
    """What the server says to a publish."""
    if not msg.data:  # no responders: the stream is not there (yet), or has no leader
        return Unavailable("no stream answers")
    ack = _decode_ack(msg.data)
    if ack.error is None:
        return Ack(ack.stream, ack.seq, ack.duplicate)
    if ack.error.err_code in _WRONG_LAST:
        return WrongLastSequence(ack.error.description)
    if ack.error.err_code in _NO_ROOM:
        return Unavailable(f"JetStream has no room: {ack.error.description}")
    if ack.error.code == 503 or ack.error.err_code in PASSING:
        return Unavailable(ack.error.description)
    return Refused(ack.error.err_code, ack.error.description)
