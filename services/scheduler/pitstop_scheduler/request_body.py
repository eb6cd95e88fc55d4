"""The bytes of a request into plain values, bounded before anything recurses into them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pitstop_common.faults import Faults
from pitstop_common.limits import MAX_REQUEST_BYTES, MAX_REQUEST_DEPTH

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKETS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHER_BYTES: Final = bytes(set(range(256)) - set(_BRACKETS))


def decode_body(data: bytes, faults: Faults) -> dict[str, Any] | None:
    """The JSON object of a message; None when there is none (the faults say why)."""
    if len(data) > MAX_REQUEST_BYTES:
        faults.add((), f"is {len(data)} bytes long; at most {MAX_REQUEST_BYTES} are accepted")
        return None
    if deeper_than(data, MAX_REQUEST_DEPTH):
        faults.add((), f"is nested deeper than {MAX_REQUEST_DEPTH} levels")
        return None
    try:
        body = msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        faults.add((), f"is not JSON: {error.reason}")
        return None
    except msgspec.DecodeError as error:
        faults.add((), f"is not JSON: {error}")
        return None
    if isinstance(body, dict):
        return body
    faults.add((), "must be a JSON object")
    return None


def deeper_than(data: bytes, limit: int) -> bool:
    """Are brackets nested deeper than `limit` anywhere outside strings. Linear, on any bytes."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for char in _STRING.sub(b"", data).translate(None, delete=_OTHER_BYTES):
        depth += _BRACKETS[char]
        if depth > limit:
            return True
    return False
