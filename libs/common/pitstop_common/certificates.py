"""OpenSSH user certificates (PROTOCOL.certkeys), taken apart and judged. Pure: whoever asks verifies the signatures.

The relay judges one by its own clock, and the sandbox host once more by its own: a relay that lies opens nothing. Only
the address that the client came from is the relay's word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from pitstop_common.public_keys import BadKey, parse_public_key
from pitstop_common.ssh_policy import Trust, authorities
from pitstop_common.userauth import (
    ACCEPTED,
    SHA1,
    Fields,
    Malformed,
    authorized,
    fingerprint,
    is_certificate,
    key_type,
    plain_type,
    signature_algorithm,
)

CertificateCode = Literal[
    "cert_type", "cert_signature", "cert_authority", "cert_revoked", "cert_not_yet", "cert_expired", "cert_option",
    "cert_address", "cert_verification", "cert_principal",
]  # fmt: skip
"""Why a certificate lets nobody in: stable codes."""

_PARTS: Final = {
    "ssh-ed25519": 1, "sk-ssh-ed25519@openssh.com": 2, SHA1: 2, "ecdsa-sha2-nistp256": 2, "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2, "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}  # fmt: skip
"""How many strings make the public key."""
_USER: Final = 1
_VERIFIED: Final = 4
"""Flag of a security key's signature: a PIN, or a finger, said who touches it."""
_MAX_LISTED: Final = 256
"""Principals, and options, of one certificate."""
_SHOWN: Final = 100
"""Characters of a key id."""

Verify = Callable[[bytes, bytes, bytes], bool]
"""Is this key's signature (third) of these bytes (second) good."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the blob of the key that it certifies, `authority` that of the key that signed `signed`. Times are
    seconds since the epoch; `before` is the first at which it is good no more. Options are as they were packed."""

    key: bytes
    serial: int
    kind: int
    id: str
    principals: tuple[str, ...]
    after: int
    before: int
    critical: tuple[tuple[str, bytes], ...]
    extensions: tuple[tuple[str, bytes], ...]
    authority: bytes
    signed: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """Of the key, as `ssh-keygen -l` prints it."""
        return fingerprint(self.key)

    @property
    def name(self) -> str:
        """As people know it."""
        return f"{self.id[:_SHOWN]!r} (serial {self.serial})"


class Bounds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a login lets its person do, whatever the project gives. `command`: this, in place of what is asked for."""

    pty: bool = True
    forwarding: bool = True
    agent: bool = True
    command: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """Why not. `text` is for people, who have proved that the certificate is theirs."""

    code: CertificateCode
    text: str


def parse(blob: bytes) -> Certificate:
    """A certificate blob. Raises Malformed."""
    fields = Fields(blob)
    kind = _text(fields.string())
    plain = plain_type(kind)
    if not is_certificate(kind) or plain not in _PARTS:
        raise Malformed("not a certificate of a known type")
    fields.string()  # the nonce
    parts = [_packed(plain.encode()), *(_packed(fields.string()) for _ in range(_PARTS[plain]))]
    serial, role, id = fields.number(8), fields.number(4), _text(fields.string())
    principals = tuple(_text(one) for one in _strings(fields.string()))
    after, before = fields.number(8), fields.number(8)
    critical, extensions = _options(fields.string()), _options(fields.string())
    fields.string()  # reserved
    authority = fields.string()
    signed = fields.read
    signature = fields.string()
    fields.end()
    return Certificate(
        key=b"".join(parts), serial=serial, kind=role, id=id, principals=principals, after=after, before=before,
        critical=critical, extensions=extensions, authority=authority, signed=signed, signature=signature,
    )  # fmt: skip


def forged(certificate: Certificate, verify: Verify) -> str:
    """What is wrong with the keys and the authority's signature; empty when they are sound."""
    try:
        for blob in (certificate.key, certificate.authority):
            if is_certificate(key_type(blob)):
                return "a certificate in the place of a key"
            parse_public_key(authorized(blob))
        algorithm, kind = signature_algorithm(certificate.signature), key_type(certificate.authority)
    except (Malformed, BadKey) as error:
        return str(error)
    if algorithm not in ACCEPTED or not (algorithm == kind or (kind == SHA1 and algorithm.startswith("rsa-sha2-"))):
        return f"its authority signed with {algorithm!r}, which is not accepted"
    good = verify(certificate.authority, certificate.signed, certificate.signature)
    return "" if good else "the signature of its authority is wrong"


def judge(certificate: Certificate, trust: Trust, now: float, client: str, signature: bytes) -> Bounds | Fault:
    """Whether a sound certificate counts for an org, now, for a client at `host:port`, and what it lets its person do.
    `signature`: the user's, of the login."""
    named = f"the certificate {certificate.name}"
    if certificate.kind != _USER:
        return Fault("cert_type", f"{named} is one of a host, not of a user")
    if authorized(certificate.authority) not in authorities(trust):
        return Fault("cert_authority", f"{named} is signed by {fingerprint(certificate.authority)}, which is no "
                     "authority here")  # fmt: skip
    revoked = trust.revoked
    if (
        certificate.serial in revoked.serials
        or certificate.id in revoked.ids
        or {certificate.fingerprint, fingerprint(certificate.authority)} & set(revoked.keys)
    ):
        return Fault("cert_revoked", f"{named} is revoked")
    if now < certificate.after:
        return Fault("cert_not_yet", f"{named} is not good yet; is a clock wrong?")
    if now >= certificate.before:
        return Fault("cert_expired", f"{named} has expired")
    return _critical(certificate, named, client, signature)


def user_of(certificate: Certificate, trust: Trust, users: Iterable[str]) -> str:
    """The first of the certificate's principals that stands for one of the users; empty: none does. A certificate
    without principals is nobody's."""
    wanted = set(users)
    standing = (trust.principals.get(principal, principal) for principal in certificate.principals)
    return next((user for user in standing if user in wanted), "")


def _critical(certificate: Certificate, named: str, client: str, signature: bytes) -> Bounds | Fault:
    command: str | None = None
    names = [name for name, _ in certificate.critical]
    if len(set(names)) != len(names):
        return Fault("cert_option", f"{named} says a critical option twice")
    for name, packed in certificate.critical:
        try:
            if name == "force-command":
                command = _text(_only(packed))
            elif name == "source-address":
                if not _within(client, _text(_only(packed))):
                    return Fault("cert_address", f"{named} is good from {_text(_only(packed))} only, not from here")
            elif name == "verify-required" and not packed:
                if not _was_verified(certificate, signature):
                    return Fault("cert_verification", f"{named} needs a security key that asks for a PIN or finger")
            else:
                return Fault("cert_option", f"{named} has the critical option {name!r}, which is not known here")
        except (Malformed, ValueError):
            return Fault("cert_option", f"{named} has a critical option {name!r} that cannot be read")
    given = {name for name, _ in certificate.extensions}
    return Bounds(pty="permit-pty" in given, forwarding="permit-port-forwarding" in given,
                  agent="permit-agent-forwarding" in given, command=command)  # fmt: skip


def _within(client: str, listed: str) -> bool:
    """Raises ValueError: not a list of networks, or no address."""
    host = client.rpartition(":")[0]
    networks = [ipaddress.ip_network(one.strip(), strict=False) for one in listed.split(",")]
    address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _was_verified(certificate: Certificate, signature: bytes) -> bool:
    if not key_type(certificate.key).startswith("sk-"):
        return False
    fields = Fields(signature)
    fields.string()
    fields.string()
    return bool(fields.byte() & _VERIFIED)


def _options(data: bytes) -> tuple[tuple[str, bytes], ...]:
    strings = _strings(data)
    if len(strings) % 2:
        raise Malformed("an option without its value")
    return tuple((_text(name), value) for name, value in zip(strings[::2], strings[1::2], strict=True))


def _strings(data: bytes) -> list[bytes]:
    fields = Fields(data)
    found = []
    while fields.left:
        found.append(fields.string())
        if len(found) > 2 * _MAX_LISTED:
            raise Malformed("too many of them")
    return found


def _only(packed: bytes) -> bytes:
    fields = Fields(packed)
    value = fields.string()
    fields.end()
    return value


def _packed(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("a name that is not text") from None
