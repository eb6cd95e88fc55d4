"""Public keys as OpenSSH writes them, checked to the last byte of the blob. Texts of errors never repeat a key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

import msgspec

from pitstop_common.errors import PitstopError
from pitstop_common.limits import MAX_KEY_CHARS

_CURVES: Final = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65),
}
KEY_TYPES: Final = ("ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519@openssh.com", *_CURVES)
_RSA_BITS: Final = range(2048, 16384 + 1)
_ED25519_BYTES: Final = 32
_TYPE_CHARS: Final = re.compile(r"[a-z0-9@.-]{1,64}\Z")


class BadKey(PitstopError):
    """Not a public key that may be used here. The text says why, without the key."""

    code = "bad_key"


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `blob` is the RFC 4253 encoding; `fingerprint` as `ssh-keygen -l` prints it."""

    type: str
    blob: bytes
    comment: str = ""

    @property
    def line(self) -> str:
        """`<type> <base64>`, without the comment: the form in which keys are kept and compared."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`"""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def parse_public_key(text: str) -> PublicKey:
    """One line of a `.pub` file. Raises BadKey."""
    if "PRIVATE KEY" in text:
        raise BadKey("this is a private key; give the public one (the file that ends in .pub), and make a new pair")
    if len(text) > MAX_KEY_CHARS:
        raise BadKey(f"longer than {MAX_KEY_CHARS} characters; a public key is one line of a .pub file")
    if any(ord(char) < 32 or ord(char) == 127 for char in text.strip().replace("\t", " ")):
        raise BadKey("more than one line, or control characters; a public key is one line of a .pub file")
    type_, _, rest = text.strip().replace("\t", " ").partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if type_ not in KEY_TYPES:
        raise BadKey(_unknown_type(type_))
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadKey("the part after the type is not base64; was the key cut when it was copied?") from None
    _check_blob(type_, blob)
    return PublicKey(type=type_, blob=blob, comment=comment.strip())


def _unknown_type(type_: str) -> str:
    if type_ == "ssh-dss":
        return "DSA keys are not accepted; make another: ssh-keygen -t ed25519"
    if "-cert-v01@" in type_:
        return "this is a certificate; give the public key itself"
    named = f"type {type_}" if _TYPE_CHARS.match(type_) and type_[0].isalpha() else "this"
    return f"{named} is not an OpenSSH public key type; known are {', '.join(KEY_TYPES)}"


def _check_blob(type_: str, blob: bytes) -> None:
    fields = _Fields(blob)
    if fields.take() != type_.encode():
        raise BadKey(f"the key inside is not of the type {type_} that the line names")
    if type_ in _CURVES:
        curve, size = _CURVES[type_]
        point = (fields.take(), fields.take())
        sound = point[0] == curve and len(point[1]) == size and point[1][:1] == b"\x04"
    elif type_ == "ssh-rsa":
        exponent, modulus = fields.number(), fields.number()
        sound = exponent >= 3 and exponent % 2 == 1 and modulus % 2 == 1
        if sound and modulus.bit_length() not in _RSA_BITS:
            raise BadKey(f"an RSA key of {modulus.bit_length()} bits; 2048 to 16384 are accepted")
    else:
        sound = len(fields.take()) == _ED25519_BYTES
    if type_.startswith("sk-"):
        sound = sound and bool(fields.take())
    if not sound or fields.left:
        raise BadKey(f"the key inside is damaged: its parts are not those of {type_}")


class _Fields:
    """Reads the strings of a blob, each with a length of four bytes before it."""

    def __init__(self, blob: bytes) -> None:
        self.left = blob

    def take(self) -> bytes:
        size = int.from_bytes(self.left[:4], "big")
        if len(self.left) < 4 or len(self.left) - 4 < size:
            raise BadKey("the key is cut short; copy the whole line of the .pub file")
        value, self.left = self.left[4 : 4 + size], self.left[4 + size :]
        return value

    def number(self) -> int:
        raw = self.take()
        return int.from_bytes(raw, "big") if raw[:1] < b"\x80" else 0
