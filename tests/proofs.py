"""Logins as a relay hands them over, signed as a client does."""

from __future__ import annotations

import secrets

import asyncssh
from asyncssh.packet import Boolean, Byte, String

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
