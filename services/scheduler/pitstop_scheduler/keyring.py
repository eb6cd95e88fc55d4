"""The keys that secrets are encrypted with at rest (AES-256-GCM): from a credential file, and nowhere else.

A line of the file is `<id> <32 bytes in base64>`; `#` begins a comment. The first key encrypts, all decrypt: that is
how keys are rotated. Each encrypted value names its key, and is bound to its place: moved to another org, context or
name it does not open.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pitstop_common.errors import ConfigError, PitstopError

log = logging.getLogger(__name__)

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}\Z")
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class NoKey(PitstopError):
    """Secrets cannot be used: no key, or not the one that a value was encrypted with."""

    code = "secrets_unavailable"


class Encrypted(msgspec.Struct, frozen=True, kw_only=True):
    """A value at rest. `key`: the id of the key that opens it."""

    key: str
    nonce: bytes
    data: bytes


class Keyring:
    """All keys, the current one first. An empty one encrypts and opens nothing."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._ciphers = {id: AESGCM(key) for id, key in keys.items()}
        self.current = next(iter(keys), "")

    def __bool__(self) -> bool:
        return bool(self._ciphers)

    def knows(self, key: str) -> bool:
        """Is the key of that id here."""
        return key in self._ciphers

    def encrypt(self, value: str, *place: str) -> Encrypted:
        """With the current key. `place`: org, context, name. Raises NoKey."""
        if not self:
            raise NoKey(
                "no key for secrets is configured: set PITSTOP_SECRETS_KEY_FILE on the schedulers"
                " (`pitstop secrets new-key` makes a line of that file)"
            )
        nonce = os.urandom(_NONCE_BYTES)
        data = self._ciphers[self.current].encrypt(nonce, value.encode(), _bound(self.current, place))
        return Encrypted(key=self.current, nonce=nonce, data=data)

    def decrypt(self, found: Encrypted, *place: str) -> str:
        """Raises NoKey: its key is not here, or it is not of this place."""
        cipher = self._ciphers.get(found.key)
        name = "/".join(place[1:])
        if cipher is None:
            raise NoKey(f"secret {name} is encrypted with key {found.key}, which no line of the key file has")
        try:
            return cipher.decrypt(found.nonce, found.data, _bound(found.key, place)).decode()
        except (InvalidTag, ValueError) as error:
            raise NoKey(f"secret {name} does not open with key {found.key}: set it again") from error


def read_keyring(file: str) -> Keyring:
    """The keys in a file; empty: none. Raises ConfigError, which never repeats a key."""
    if not file:
        return Keyring({})
    try:
        text = Path(file).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or "it is not ASCII text"
        raise ConfigError(f"PITSTOP_SECRETS_KEY_FILE: cannot read {file}: {why}") from error
    if Path(file).stat().st_mode & 0o077:
        log.warning("%s can be read by others than its owner: chmod 600 it", file)
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key = _key_of(words)
        if key is None or words[0] in keys:
            raise ConfigError(
                f"PITSTOP_SECRETS_KEY_FILE: {file}:{number} should be `<id> <{_KEY_BYTES} bytes in base64>`, each id"
                " once; `pitstop secrets new-key` makes such a line"
            )
        keys[words[0]] = key
    if not keys:
        raise ConfigError(f"PITSTOP_SECRETS_KEY_FILE: {file} holds no key; `pitstop secrets new-key` makes one")
    return Keyring(keys)


def _key_of(words: list[str]) -> bytes | None:
    if len(words) != 2 or not _ID.match(words[0]):
        return None
    try:
        key = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return None
    return key if len(key) == _KEY_BYTES else None


def _bound(key: str, place: tuple[str, ...]) -> bytes:
    return "\0".join(("pitstop secret 1", key, *place)).encode()
