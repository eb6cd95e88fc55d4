"""Whether a login that a relay hands over is one that the user really made. Pure, apart from the arithmetic.

The relay is not believed: the user's own signature over the SSH session id and the login request, which holds the job
id as user name, is verified here again, against the keys that the scheduler allows.
"""

from __future__ import annotations

from typing import Final

import asyncssh
import msgspec
from asyncssh.packet import String
from asyncssh.public_key import decode_ssh_public_key

from pitstop_common.link import Open
from pitstop_common.messages import AccessReply
from pitstop_common.userauth import MAX_KEY_BYTES, Malformed, authorized, fingerprint, fits, parse, signature_algorithm

_SESSION_IDS: Final = range(20, 65)
"""Lengths of an exchange hash, bytes."""
_OVER: Final = frozenset({"stopping", "finished"})


class Granted(msgspec.Struct, frozen=True):
    """The user is who the signature says, and may enter."""

    user: str
    fingerprint: str


class Refused(msgspec.Struct, frozen=True):
    """`reason` is a stable code; `text` what the person reads."""

    reason: str
    text: str


def check(login: Open, access: AccessReply, host: str) -> Granted | Refused:
    """Judge a login for a job of this host. That its session id is new is the caller's to see to."""
    fault = proof_fault(login)
    if fault:
        return Refused("bad_grant", f"the sandbox host does not accept this login: {fault}")
    if not access.found or access.status in _OVER:
        return Refused("ended", f"the job {login.job} has ended, and its session with it")
    if not access.offers:
        return Refused("no_ssh", f"the job {login.job} was started without ssh")
    if access.host != host:
        return Refused("elsewhere", f"the job {login.job} is not on this host any more; connect again")
    key = authorized(login.key)
    user = next((allowed.user for allowed in access.allowed if allowed.key == key), "")
    if not user:
        return Refused("bad_grant", "the sandbox host does not accept this login: the key is not allowed in this job")
    return Granted(user, fingerprint(login.key))


def proof_fault(login: Open) -> str:
    """What is wrong with the proof of a login; empty when it is good."""
    if len(login.session_id) not in _SESSION_IDS:
        return "not a session id"
    if len(login.key) > MAX_KEY_BYTES:
        return "the key is too long"
    try:
        request = parse(login.message)
        if request.user != login.job:
            return "it was signed for another job"
        if request.key != login.key:
            return "it was signed for another key"
        if not fits(request.algorithm, login.key) or signature_algorithm(login.signature) != request.algorithm:
            return "the signature's algorithm is not accepted"
    except Malformed as error:
        return str(error)
    return "" if verifies(login) else "the signature is wrong"


def verifies(login: Open) -> bool:
    """Whether the signature is the key's, over this session id and this message."""
    try:
        key = decode_ssh_public_key(login.key)
        key.set_touch_required(True)
        return key.verify(String(login.session_id) + login.message, login.signature)
    except (asyncssh.KeyImportError, ValueError, TypeError, OverflowError):
        return False
