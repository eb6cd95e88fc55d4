"""NATS account keys ("NKeys", ed25519) and the JWTs that they sign: what a server asks of an auth callout. Pure, apart
from the arithmetic. Format: base32 of a prefix byte, the key, and CRC-16/XMODEM, low byte first; a seed begins with `S`
and the kind of key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pitstop_common.errors import ConfigError

_SEED: Final = 18 << 3
_ACCOUNT: Final = 0 << 3
_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}


class AccountKey:
    """Signs what the server is to believe of its users."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @classmethod
    def generate(cls) -> AccountKey:
        """A new one."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_seed(cls, text: str) -> AccountKey:
        """From `SA…`. Raises ConfigError."""
        seed = text.strip()
        try:
            data = base64.b32decode(seed + "=" * (-len(seed) % 8))
        except ValueError:
            data = b""
        is_one = len(data) == 36 and data[0] == _SEED | _ACCOUNT >> 5 and _checked(data[:-2]) == data
        if not is_one or _base32(data) != seed:  # the last letter has bits that are no part of it
            raise ConfigError("not the seed of an account key (SA…)")
        return cls(data[2:-2])

    @property
    def seed(self) -> str:
        """`SA…`: secret."""
        return _text(bytes([_SEED | _ACCOUNT >> 5, (_ACCOUNT & 31) << 3]) + self._raw)

    @property
    def public(self) -> str:
        """`A…`: the issuer in the server's configuration."""
        return _text(bytes([_ACCOUNT]) + self._key.public_key().public_bytes_raw())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT with these claims, the issuer and a unique id."""
        issued = {**claims, "iss": self.public}
        issued["jti"] = _base32(hashlib.sha256(json.dumps(issued, sort_keys=True).encode()).digest())
        signed = f"{_part(_HEADER)}.{_part(issued)}"
        return f"{signed}.{_base64(self._key.sign(signed.encode()))}"


def claims_of(token: bytes) -> dict[str, Any]:
    """What a JWT says, unverified. Raises ValueError."""
    parts = token.split(b".")
    if len(parts) != 3:
        raise ValueError("not a JWT")
    found = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    if not isinstance(found, dict):
        raise ValueError("a JWT without claims")
    return found


def _text(body: bytes) -> str:
    return _base32(_checked(body))


def _checked(body: bytes) -> bytes:
    return body + binascii.crc_hqx(body, 0).to_bytes(2, "little")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _part(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())
