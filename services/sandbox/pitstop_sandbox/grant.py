"""Whether a login that a relay hands over is one that the user really made. Pure, apart from the arithmetic.

The relay is not believed: the user's own signature over the SSH session id and the login request, which holds the job
id as user name, is verified here again, against the keys and authorities that the scheduler allows; so is an access
token, against its hash.
"""

from __future__ import annotations

from typing import Final

import asyncssh
import msgspec
from asyncssh.packet import String
from asyncssh.public_key import decode_ssh_public_key

from pitstop_common.certificates import Bounds, Certificate, forged, parse
from pitstop_common.credentials import Entered, by_certificate, by_key, by_token, token_id
from pitstop_common.link import Open
from pitstop_common.messages import AccessReply
from pitstop_common.userauth import (
    Malformed,
    authorized,
    fingerprint,
    fits,
    is_certificate,
    key_type,
    signature_algorithm,
    signed_with,
    within_bounds,
)
from pitstop_common.userauth import parse as parse_request

_SESSION_IDS: Final = range(20, 65)
"""Lengths of an exchange hash, bytes."""
_OVER: Final = frozenset({"stopping", "finished"})


class Granted(msgspec.Struct, frozen=True):
    """The user is who the proof says, and may enter. `fingerprint`: of the key, or the id of the token."""

    user: str
    fingerprint: str
    bounds: Bounds = Bounds()
    via: str = ""
    """The certificate, in words."""


class Refused(msgspec.Struct, frozen=True):
    """`reason` is a stable code; `text` what the person reads."""

    reason: str
    text: str


def check(login: Open, access: AccessReply, host: str, now: float) -> Granted | Refused:
    """Judge a login for a job of this host. `now`: seconds since the epoch, by this host's clock. That its session id
    is new is the caller's to see to."""
    fault = proof_fault(login)
    if fault:
        return Refused("bad_grant", f"the sandbox host does not accept this login: {fault}")
    if not access.found or access.status in _OVER:
        return Refused("ended", f"the job {login.job} has ended, and its session with it")
    if not access.offers:
        return Refused("no_ssh", f"the job {login.job} was started without ssh")
    if access.host != host:
        return Refused("elsewhere", f"the job {login.job} is not on this host any more; connect again")
    return _known(login, access, now)


def _known(login: Open, access: AccessReply, now: float) -> Granted | Refused:
    """Who it is, of a login whose own proof is good."""
    via = ""
    if login.token:
        mark, found = token_id(login.token), by_token(login.token, access)
    elif (certificate := certificate_of(login)) is not None:
        mark, via = certificate.fingerprint, f"certificate {certificate.name} of {fingerprint(certificate.authority)}"
        found = by_certificate(certificate, access, now, login.client, login.signature)
    else:
        mark, found = fingerprint(login.key), by_key(authorized(login.key), access)
    if isinstance(found, Entered):
        return Granted(found.user, mark, found.bounds, via)
    why = found.text or _WHY.get(found.code, found.code)
    return Refused("bad_grant", f"the sandbox host does not accept this login: {why}")


_WHY: Final = {
    "key_unknown": "the key is not allowed in this job", "not_your_run": "its user is not allowed in this job",
    "bad_token": "it is no access token",
}  # fmt: skip


def certificate_of(login: Open) -> Certificate | None:
    """What came in the place of a key; None: a key. Raises Malformed."""
    return parse(login.key) if is_certificate(key_type(login.key)) else None


def proof_fault(login: Open) -> str:
    """What is wrong with the proof of a login, whatever the scheduler says; empty when nothing is. A token proves
    nothing by itself."""
    if len(login.session_id) not in _SESSION_IDS:
        return "not a session id"
    if login.token:
        return "a token and a signature" if login.key or login.message or login.signature else ""
    try:
        if not within_bounds(login.key):
            return "the key is too long"
        request = parse_request(login.message)
        if request.user != login.job:
            return "it was signed for another job"
        if request.key != login.key:
            return "it was signed for another key"
        used = signed_with(request.algorithm)
        if not fits(request.algorithm, login.key) or signature_algorithm(login.signature) != used:
            return "the signature's algorithm is not accepted"
        certificate = certificate_of(login)
        if certificate is not None and (fault := forged(certificate, verifies)):
            return fault
    except Malformed as error:
        return str(error)
    key = certificate.key if certificate is not None else login.key
    good = verifies(key, String(login.session_id) + login.message, login.signature)
    return "" if good else "the signature is wrong"


def verifies(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the signature of these bytes is the key's. A security key must have been touched for it."""
    try:
        public = decode_ssh_public_key(key)
        public.set_touch_required(True)
        return public.verify(data, signature)
    except (asyncssh.KeyImportError, ValueError, TypeError, OverflowError):
        return False
