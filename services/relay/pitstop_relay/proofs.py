"""The arithmetic of signatures."""

from __future__ import annotations

import asyncssh
from asyncssh.packet import String
from asyncssh.public_key import decode_ssh_public_key

from pitstop_common.userauth import ACCEPTED, SHA1, Malformed, key_type, plain_type, within_bounds


def acceptable(key: bytes) -> bool:
    """Whether a key of this type can log in at all."""
    try:
        return within_bounds(key) and plain_type(key_type(key)) in (*ACCEPTED, SHA1)
    except Malformed:
        return False


def verifies(session_id: bytes, message: bytes, signature: bytes, key: bytes) -> bool:
    """Whether the signature is the key's, over this session id and this message."""
    return verifies_data(key, String(session_id) + message, signature)


def verifies_data(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the signature of these bytes is the key's. A security key must have been touched for it."""
    try:
        public = decode_ssh_public_key(key)
        public.set_touch_required(True)
        return public.verify(data, signature)
    except (asyncssh.KeyImportError, ValueError, TypeError, OverflowError):
        return False
