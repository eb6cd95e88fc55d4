"""Takes the credentials out of the source of a request that is kept because it cannot be used. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

CUT: Final = "***"
_USER_INFO: Final = re.compile(r"(?i)([a-z][a-z0-9+.-]{0,30})(://)([^/?#\s\"\\]*)@")
_IN_QUERY: Final = re.compile(r"([?&#;][^=&#;?\s\"\\]*=)[^&#;\s\"\\]+")
_SECRET_NAME: Final = re.compile(r"(?i)token|secret|password|key")
"""Each pattern looks at a byte a bounded number of times: bodies are hostile, and up to a megabyte."""


def without_credentials(body: bytes) -> tuple[bytes, bool]:
    """A request's body as it may be kept, and whether something was cut out of it. What is no JSON object is searched
    as a whole; of a request only the `source` is, so that its steps can be replayed as they are."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        text = body.decode("utf-8", "surrogateescape")
        cut = _cut(text)
        return (cut.encode("utf-8", "surrogateescape"), True) if cut != text else (body, False)
    source = _walk(decoded.get("source"))
    if source == decoded.get("source"):
        return body, False
    return msgspec.json.encode({**decoded, "source": source}), True


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, list):
        return [_walk(one) for one in value]
    if isinstance(value, dict):
        return {_cut(key): _walk(one) for key, one in value.items()}
    return value


def _cut(text: str) -> str:
    if "://" in text:  # looked for first: a large body without one would take seconds
        text = _USER_INFO.sub(_without_user, text)
    return _IN_QUERY.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    return found[1] + CUT if _SECRET_NAME.search(found[1]) else found[0]


def _without_user(found: re.Match[str]) -> str:
    scheme, slashes, user = found.groups()
    if scheme.lower() == "ssh" and ":" not in user:  # a name to log in by is no secret: ssh://git@host
        return found[0]
    return f"{scheme}{slashes}{CUT}:{CUT}@"  # with a password: it is refused again when it is replayed
