"""Changes to bytes and to the order of messages, from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

_LENGTHS: Final = (0, 1, 2, 255, 256, 32767, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_MOST_REPEATED: Final = 2000


class Mutator:
    """One conversation's. The same seed makes the same changes."""

    def __init__(self, *seed: object) -> None:
        self.random = random.Random(repr(seed))

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return self.random.random() < probability

    def changed(self, data: bytes) -> bytes:
        """Never what was given."""
        made = data
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            made = self.random.choice(_CHANGES)(self.random, made)
        return made if made != data else data + b"\0"

    def stream(self, messages: Sequence[bytes], often: float) -> list[bytes]:
        """Some changed, some left out, some twice, some in another order."""
        made: list[bytes] = []
        for message in messages:
            kind = self.random.random()
            if kind < often:
                made.append(self.changed(message))
            elif kind < often * 1.15:
                continue
            elif kind < often * 1.3:
                made += [message, message]
            elif kind < often * 1.45 and made:
                made.insert(self.random.randrange(len(made)), message)
            else:
                made.append(message)
        return made

    def pieces(self, data: bytes) -> list[bytes]:
        """The same bytes, cut at random."""
        cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(self.random.choice((0, 0, 1, 3))))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]


def _flip(chance: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\1"
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << chance.randrange(8)),)) + data[at + 1 :]


def _byte(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes((chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))),)) + data[at + 1 :]


def _kind(chance: random.Random, data: bytes) -> bytes:
    return bytes((chance.randrange(256),)) + data[1:]


def _length(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(max(1, len(data) - 3))
    return data[:at] + chance.choice(_LENGTHS).to_bytes(4, "big") + data[at + 4 :]


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _drop(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randrange(9) :]


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.choice((1, 4, 40))) + data[at:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    piece = data[start : start + chance.randrange(1, 9)]
    return data[:start] + piece * chance.choice((2, 3, _MOST_REPEATED)) + data[start:]


def _text(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice((b"\xff\xfe", b"\0", b"\r\n", "é\u202e".encode(), b"%s%n", b",,")) + data[at:]


_CHANGES: Final = (_flip, _flip, _byte, _byte, _kind, _length, _length, _cut, _drop, _insert, _repeat, _text)
