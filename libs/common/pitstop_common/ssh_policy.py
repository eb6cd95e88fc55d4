"""What an org says of how its people prove who they are over SSH: sources of keys, authorities of certificates, what
is revoked. Pure."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from pitstop_common.limits import MAX_AUTHORITIES, MAX_KEY_CHARS, MAX_PRINCIPALS, MAX_REVOKED, TOKEN
from pitstop_common.public_keys import BadKey, parse_public_key

_USER: Final = TOKEN.pattern.removesuffix(chr(92) + "Z")

User = Annotated[str, Meta(pattern=rf"^{_USER}$", description="a user name (letters, digits, - and _, at most 64)")]
Principal = Annotated[str, Meta(min_length=1, max_length=256)]
Authority = Annotated[str, Meta(max_length=MAX_KEY_CHARS, description="a public key: one line of a .pub file")]
Serial = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Fingerprint = Annotated[str, Meta(pattern=r"^SHA256:[A-Za-z0-9+/]{43}$", description="SHA256:… as of ssh-keygen -l")]
Template = Annotated[
    str,
    Meta(
        max_length=500, pattern=r"^(https?://[^\s{}]*/[^\s{}]*\{user\}[^\s{}]*)?$",
        description="a URL with {user} once behind the host, as https://git.example/{user}.keys",
    ),
]  # fmt: skip
SecretName = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,63}/[A-Za-z_][A-Za-z0-9_]{0,127})?$",
        description="CONTEXT/NAME of a secret (`pitstop secrets set CONTEXT NAME`)",
    ),
]  # fmt: skip


class Revoked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Certificates that are good for nothing any more: by serial number, by key id, by the fingerprint of their key or
    of the authority that signed them."""

    serials: Annotated[list[Serial], Meta(max_length=MAX_REVOKED)] = []
    ids: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(max_length=MAX_REVOKED)] = []
    keys: Annotated[list[Fingerprint], Meta(max_length=MAX_REVOKED)] = []


class Trust(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose user certificates count. `principals`: the user that a principal stands for, where that is not the user of
    the same name."""

    user_ca: Annotated[list[Authority], Meta(max_length=MAX_AUTHORITIES)] = []
    principals: Annotated[dict[Principal, User], Meta(max_length=MAX_PRINCIPALS)] = {}
    revoked: Revoked = Revoked()


class OrgSsh(Trust, frozen=True, kw_only=True, omit_defaults=True):
    """All of it. `keys_url`: where the keys of each user are found; `keys_token`: the secret that is sent there as a
    bearer token."""

    keys_url: Template = ""
    keys_token: SecretName = ""


def faults(policy: OrgSsh) -> list[tuple[tuple[str, ...], str]]:
    """What the types cannot tell: path below `ssh`, and why."""
    found: list[tuple[tuple[str, ...], str]] = []
    for number, line in enumerate(policy.user_ca):
        try:
            parse_public_key(line)
        except BadKey as error:
            found.append((("user_ca", str(number)), str(error)))
    if policy.keys_token and not policy.keys_url:
        found.append((("keys_token",), "needs a keys_url to be sent to"))
    return found


def authorities(policy: Trust) -> frozenset[str]:
    """The keys of the authorities as `<type> <base64>`."""
    return frozenset(" ".join(line.split()[:2]) for line in policy.user_ca)
