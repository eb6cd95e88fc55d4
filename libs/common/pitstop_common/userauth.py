"""What a user signs to log in (RFC 4252 section 7), taken apart. Pure bytes, no cryptography.

The relay and the sandbox host both read it, with this one reading; each verifies the signature for itself.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

import msgspec

ACCEPTED: Final = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""Signature algorithms. `ssh-rsa` is not one of them: it signs with SHA-1."""

SHA1: Final = "ssh-rsa"
CERTIFICATE: Final = "-cert-v01@openssh.com"
"""How the types of certificates end, and the algorithms that a client names for them."""
MAX_KEY_BYTES: Final = 2048
"""A public key blob: enough for RSA with 8192 bits. Larger ones only cost time to verify."""
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
"""A certificate blob: two keys, a signature, principals and options."""

_REQUEST: Final = 50
_SERVICE: Final = b"ssh-connection"
_METHOD: Final = b"publickey"


class Malformed(ValueError):
    """Not a signed login request."""


class Login(msgspec.Struct, frozen=True):
    """A login request by public key. `key` is the public key blob."""

    user: str
    algorithm: str
    key: bytes


def parse(message: bytes) -> Login:
    """The request inside a signed message. Raises Malformed."""
    fields = Fields(message)
    if fields.byte() != _REQUEST:
        raise Malformed("not a login request")
    user = fields.string()
    if fields.string() != _SERVICE:
        raise Malformed("a login for another service")
    if fields.string() != _METHOD:
        raise Malformed("a login by another method")
    if fields.byte() != 1:
        raise Malformed("a login without a signature")
    algorithm, key = fields.string(), fields.string()
    fields.end()
    try:
        return Login(user.decode(), algorithm.decode("ascii"), key)
    except UnicodeDecodeError:
        raise Malformed("a name that is not text") from None


def signature_algorithm(signature: bytes) -> str:
    """The algorithm that a signature blob names. Raises Malformed."""
    try:
        return Fields(signature).string().decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("a name that is not text") from None


def key_type(key: bytes) -> str:
    """The type that a public key blob names, e.g. `ssh-rsa`. Raises Malformed."""
    return signature_algorithm(key)


def fits(algorithm: str, key: bytes) -> bool:
    """Whether an accepted algorithm goes with the type of a key or certificate. Raises Malformed."""
    kind = key_type(key)
    if is_certificate(kind) != is_certificate(algorithm):
        return False
    kind, algorithm = plain_type(kind), signed_with(algorithm)
    return algorithm in ACCEPTED and (algorithm == kind or (kind == SHA1 and algorithm.startswith("rsa-sha2-")))


def is_certificate(kind: str) -> bool:
    """Whether a type, or an algorithm, is that of a certificate."""
    return kind.endswith(CERTIFICATE)


def plain_type(kind: str) -> str:
    """The type of the key in a certificate of this type; of a key, its own."""
    if not is_certificate(kind):
        return kind
    plain = kind.removesuffix(CERTIFICATE)
    return f"{plain}@openssh.com" if plain.startswith("sk-") else plain


def signed_with(algorithm: str) -> str:
    """The algorithm of the signature, where a client names that of a certificate."""
    return plain_type(algorithm)


def within_bounds(key: bytes) -> bool:
    """Is a key or certificate of a size that is looked at. Raises Malformed."""
    return len(key) <= (MAX_CERTIFICATE_BYTES if is_certificate(key_type(key)) else MAX_KEY_BYTES)


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` prints it: `SHA256:…`."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def authorized(key: bytes) -> str:
    """As in an authorized_keys file: `<type> <base64>`. Raises Malformed."""
    return f"{key_type(key)} {base64.b64encode(key).decode()}"


class Fields:
    """Reads the fields of RFC 4251 section 5 one after the other. Raises Malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """One byte."""
        return self._take(1)[0]

    def number(self, size: int) -> int:
        """Of `size` bytes."""
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        """With its length before it."""
        return self._take(int.from_bytes(self._take(4), "big"))

    @property
    def read(self) -> bytes:
        """What was read so far."""
        return self._data[: self._at]

    @property
    def left(self) -> bool:
        """Is there more."""
        return self._at < len(self._data)

    def end(self) -> None:
        """Nothing may follow."""
        if self.left:
            raise Malformed("something follows the request")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise Malformed("cut short")
        piece = self._data[self._at : end]
        self._at = end
        return piece
