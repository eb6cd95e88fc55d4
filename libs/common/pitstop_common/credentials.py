"""Who somebody is by what was proved: a key, a certificate, an access token. Pure, and the same for the relay and the
sandbox host, each of which asks `svc.access` and judges for itself."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, Literal

import msgspec

from pitstop_common.certificates import Bounds, Certificate, CertificateCode, Fault, judge, user_of
from pitstop_common.messages import AccessReply, Barrier, Entrant

_TOKEN: Final = re.compile(r"(ssh-[0-9a-f]{16})\.([A-Za-z0-9_-]{20,100})\Z")
_NOBODYS_HASH: Final = "0" * 64

Code = CertificateCode | Barrier | Literal["key_unknown", "not_your_run", "bad_token", "token_expired", "token_other"]
"""Why nobody is let in by it: stable codes."""


class Entered(msgspec.Struct, frozen=True):
    """The user that it is, and what the way in allows."""

    user: str
    bounds: Bounds = Bounds()


class Unfit(msgspec.Struct, frozen=True):
    """Not let in. `text`: why, for whoever proved it; of `key_unknown` and `bad_token` empty, as there is nobody to
    tell. `user`: whose it is, where that is known."""

    code: Code
    text: str = ""
    user: str = ""


def by_key(key: str, access: AccessReply) -> Entered | Unfit:
    """By a key, as `<type> <base64>`."""
    user = next((allowed.user for allowed in access.allowed if allowed.key == key), "")
    if user:
        return Entered(user)
    if access.barrier:
        return Unfit(access.barrier, access.barrier_text)
    return Unfit("not_your_run", user=access.owner) if access.owner else Unfit("key_unknown")


def by_certificate(
    certificate: Certificate, access: AccessReply, now: float, client: str, signature: bytes
) -> Entered | Unfit:
    """By a certificate whose signatures are good. `now`: seconds since the epoch; `client`: `host:port`."""
    verdict = judge(certificate, access.trust, now, client, signature)
    if isinstance(verdict, Fault):
        return Unfit(verdict.code, verdict.text)
    user = user_of(certificate, access.trust, (one.user for one in access.people if not one.barrier))
    if user:
        return Entered(user, verdict)
    barred = user_of(certificate, access.trust, (one.user for one in access.people))
    if barred:
        return _barred(barred, access.people)
    named = ", ".join(repr(one) for one in certificate.principals[:5]) or "nobody"
    return Unfit("cert_principal", f"the certificate {certificate.name} is for {named}; the job {access.job} is "
                 f"{access.actor}'s")  # fmt: skip


def token_id(password: str) -> str:
    """The id in the text of an access token; empty: it is none."""
    found = _TOKEN.match(password)
    return found[1] if found else ""


def by_token(password: str, access: AccessReply) -> Entered | Unfit:
    """By an access token. What is said of it takes the same time whether there is such a token or not."""
    found, known = _TOKEN.match(password), access.token
    digest = hashlib.sha256((found[2] if found else "").encode()).hexdigest()
    same = hmac.compare_digest(digest, known.hash if known is not None else _NOBODYS_HASH)
    if not (same and found and known is not None and known.id == found[1]):
        return Unfit("bad_token")
    if known.over:
        return Unfit("token_expired", f"the access token {known.id} has expired", known.user)
    if access.found and (known.job not in {"", access.job} or known.org != access.org):
        which = f"the job {known.job}" if known.job else f"jobs of the org {known.org}"
        return Unfit("token_other", f"the access token {known.id} is for {which}", known.user)
    entrant = next((one for one in access.people if one.user == known.user), None)
    if entrant is None:
        return Unfit("not_your_run", user=known.user)
    return _barred(known.user, access.people) if entrant.barrier else Entered(known.user)


def _barred(user: str, people: tuple[Entrant, ...]) -> Unfit:
    entrant = next(one for one in people if one.user == user)
    assert entrant.barrier
    return Unfit(entrant.barrier, entrant.barrier_text, user)
