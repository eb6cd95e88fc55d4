"""Logins as a relay hands them over, signed as a client does."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh.packet import Boolean, Byte, MPInt, String
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pitstop_common.link import Open
from pitstop_common.userauth import signed_with

CLIENT = "192.0.2.7:50000"


def request(job: str, algorithm: str, blob: bytes) -> bytes:
    """What is signed, after the session id."""
    return (
        Byte(50) + String(job) + String("ssh-connection") + String("publickey") + Boolean(True) + String(algorithm)
        + String(blob)
    )  # fmt: skip


def signed(
    key: asyncssh.SSHKey, job: str, *, blob: bytes = b"", algorithm: str = "ssh-ed25519", session: bytes = b""
) -> Open:
    """By a key, or by its certificate (`blob`)."""
    blob, session = blob or key.public_data, session or secrets.token_bytes(32)
    message = request(job, algorithm, blob)
    signature = key.sign(String(session) + message, signed_with(algorithm).encode())
    return Open(job=job, session_id=session, message=message, signature=signature, key=blob, client=CLIENT)


def security_key(kind: str) -> tuple[bytes, Callable[[bytes, int], bytes]]:
    """A blob, and what signs as a token of that kind does: over its application, flags, a counter and the hash."""
    private: Any
    if kind == "sk-ssh-ed25519@openssh.com":
        private = ed25519.Ed25519PrivateKey.generate()
        blob = String(kind) + String(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    else:
        private = ec.generate_private_key(ec.SECP256R1())
        point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        blob = String(kind) + String("nistp256") + String(point)

    def sign(data: bytes, flags: int) -> bytes:
        counter = struct.pack(">BI", flags, 7)
        signed = hashlib.sha256(b"ssh:").digest() + counter + hashlib.sha256(data).digest()
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return String(kind) + String(private.sign(signed)) + counter
        r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(SHA256())))
        return String(kind) + String(MPInt(r) + MPInt(s)) + counter

    return blob + String("ssh:"), sign
