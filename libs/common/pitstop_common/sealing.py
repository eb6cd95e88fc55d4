"""Secrets on their way to a host: sealed (HPKE, RFC 9180) to the public key that is in the host's claim.

The words that bind a sealed text to its job are part of the key schedule: sealed for one attempt of a job on one host,
it opens for no other. Private keys and values are never written to a log or put into an error.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from pitstop_common.errors import ConfigError, PitstopError

_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_VERSION: Final = b"pitstop secrets 1"
_KEY_BYTES: Final = 32


class BadSeal(PitstopError):
    """What was sealed is not for this key and purpose, or is damaged."""

    code = "bad_seal"


class HostKey:
    """The key pair of a sandbox host. The private half is on the host's disk alone (0600)."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
        """Raw, in base64: what stands in claims."""

    @classmethod
    def kept(cls, path: Path) -> HostKey:
        """The one in a file, which is made when it is not there. Raises ConfigError when it cannot be used."""
        try:
            return cls(X25519PrivateKey.from_private_bytes(path.read_bytes()))
        except FileNotFoundError:
            made = X25519PrivateKey.generate()
        except ValueError as error:
            raise ConfigError(f"{path} is no key of a host: remove it, and a new one is made") from error
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(made.private_bytes_raw())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        return cls(made)

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """What was sealed to this key for a purpose. Raises BadSeal."""
        try:
            return _SUITE.decrypt(sealed, self._private, info=_info(purpose))
        except (InvalidTag, ValueError) as error:
            raise BadSeal("the secrets were not sealed for this host and job") from error


def seal(text: bytes, public: str, purpose: str) -> bytes:
    """`text`, readable only by the holder of the key `public` (as HostKey.public) for this purpose. Raises BadSeal when
    that is no key."""
    try:
        raw = base64.b64decode(public, validate=True)
        if len(raw) != _KEY_BYTES:
            raise ValueError("wrong length")
        return _SUITE.encrypt(text, X25519PublicKey.from_public_bytes(raw), info=_info(purpose))
    except (ValueError, binascii.Error) as error:
        raise BadSeal("the claim holds no public key to seal the secrets to") from error


def for_attempt(job: str, attempt: int, host: str, incarnation: str) -> str:
    """The purpose of a job's secrets."""
    return f"{job}.{attempt} {host} {incarnation}"


def _info(purpose: str) -> bytes:
    return _VERSION + b"\0" + purpose.encode()
