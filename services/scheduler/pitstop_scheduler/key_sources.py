"""Sources of public keys: where a person's are, which addresses may be asked, what an answer says. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import msgspec

from pitstop_common.errors import PitstopError
from pitstop_common.limits import MAX_LINKED_KEYS
from pitstop_common.public_keys import BadKey, PublicKey, parse_public_key

PUBLIC: Final = {
    "github": "https://github.com/{user}.keys",
    "gitlab": "https://gitlab.com/{user}.keys",
    "codeberg": "https://codeberg.org/{user}.keys",
}
"""Sources that every org has."""
ORG: Final = "org"
"""The one that the org's admins have set (`keys_url`)."""
_HOLE: Final = "{user}"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_FOR_LOGINS: Final = frozenset({"signing"})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadLink(PitstopError):
    """No source, or no name, that keys can be linked to."""

    code = "bad_link"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A person's account at a source. `added`: RFC 3339."""

    source: str
    name: str
    added: str = ""

    @property
    def label(self) -> str:
        """`github:ada`"""
        return f"{self.source}:{self.name}"


class Source(msgspec.Struct, frozen=True):
    """One place to ask. `token`: CONTEXT/NAME of the secret that is sent along."""

    label: str
    url: str
    token: str = ""

    @property
    def host(self) -> str:
        """As the URL names it."""
        return urlsplit(self.url).hostname or ""


def read_link(text: str, user: str, keys_url: str) -> Link:
    """`github:ada`, `org:ada`, a template or the URL itself, of a source that is known. Raises BadLink."""
    known = templates(keys_url)
    source, colon, name = text.partition(":")
    if colon and source in known and not name.startswith("//"):
        return _link(source, name)
    for source, template in known.items():
        before, _, after = template.partition(_HOLE)
        if text == template:
            return _link(source, user)
        if text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after):
            return _link(source, unquote(text[len(before) : len(text) - len(after)]))
    raise BadLink(
        f"no source of keys is called so; known are {', '.join(f'{one}:NAME' for one in known)}. An admin of the org "
        "sets another: `keys_url` under [ssh] in the org's file, then `pitstop apply`"
    )


def templates(keys_url: str) -> dict[str, str]:
    """All that an org has, by name."""
    return {**PUBLIC, **({ORG: keys_url} if keys_url else {})}


def sources(links: Iterable[Link], user: str, keys_url: str, keys_token: str) -> list[Source]:
    """Where the keys of a user are: at the org's own source under the user's name unless it is linked otherwise."""
    chosen = list(links)
    if keys_url and _NAME.match(user) and all(link.source != ORG for link in chosen):
        chosen.append(Link(source=ORG, name=user))
    known = templates(keys_url)
    return [
        Source(link.label, url_of(known[link.source], link.name), keys_token if link.source == ORG else "")
        for link in chosen
        if link.source in known
    ]


def url_of(template: str, name: str) -> str:
    """The URL of one account."""
    return template.replace(_HOLE, quote(name, safe=""))


def _link(source: str, name: str) -> Link:
    if not _NAME.match(name):
        raise BadLink("the name of an account is letters, digits, dots, - and _, at most 100")
    return Link(source=source, name=name)


# -- what may be asked -----------------------------------------------------------------------------------------------


def url_fault(url: str, token: bool, internal: frozenset[str]) -> str:
    """Why a URL is not asked; empty when it may be. `internal`: hosts in private networks, and by http, that who runs
    the schedulers allows."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    loopback = host in _LOOPBACK
    if parts.username is not None or parts.password is not None:
        return "a URL with a password in it"
    if parts.scheme != "https" and not loopback and (host not in internal or token):
        return "not https" + (", and there is a token to be kept" if token else "")
    return ""


def may_be_asked(address: Address, host: str, internal: frozenset[str]) -> bool:
    """Whether a host name of a template may have this address. One of a private network must be named itself, or its
    host be `internal`; where machines find their own credentials (link-local), nobody is ever asked."""
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_link_local or plain.is_multicast or plain.is_unspecified:
        return False
    if plain.is_global and not plain.is_reserved:
        return True
    named = host in {str(address), str(plain)} or (plain.is_loopback and host == "localhost")
    return named or (host in internal and not plain.is_loopback)


def same_place(url: str, other: str) -> bool:
    """Is a redirect one to the same server."""
    here, there = urlsplit(url), urlsplit(other)
    return (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)


# -- what is answered ------------------------------------------------------------------------------------------------


def read_keys(body: bytes, now: float) -> list[PublicKey]:
    """The keys in an answer: text, one a line, or a JSON list as GitHub, GitLab and Gitea give it. What is no key that
    can be used, has expired or is for signatures only, is left out. Raises BadLink: neither."""
    found: dict[bytes, PublicKey] = {}
    for line in _lines(body, now):
        try:
            key = parse_public_key(line)
        except BadKey:
            continue
        found.setdefault(key.blob, key)
        if len(found) == MAX_LINKED_KEYS:
            break
    return list(found.values())


def _lines(body: bytes, now: float) -> list[str]:
    if not body.lstrip().startswith((b"[", b"{")):
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise BadLink("its answer is no text") from None
        if text.lstrip().startswith("<"):
            raise BadLink("its answer is a web page, and no list of keys")
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        listed = msgspec.json.decode(body, type=list[Any])
    except (msgspec.MsgspecError, RecursionError):
        raise BadLink("its answer is JSON, but no list of keys") from None
    return [line for entry in listed if (line := _line(entry, now))]


def _line(entry: Any, now: float) -> str:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        return ""
    if entry.get("usage_type") in _NOT_FOR_LOGINS or _is_over(entry.get("expires_at"), now):
        return ""
    return str(entry["key"])


def _is_over(stamp: Any, now: float) -> bool:
    if not isinstance(stamp, str):
        return False
    try:
        return bool(msgspec.convert(stamp, type=datetime).timestamp() <= now)
    except (msgspec.ValidationError, ValueError, OverflowError):
        return True
