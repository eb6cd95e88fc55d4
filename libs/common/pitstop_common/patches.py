"""The uncommitted change that travels with a request: deflated, in base64, and never larger than its limits. Pure."""

from __future__ import annotations

import base64
import binascii
import zlib

from pitstop_common.limits import MAX_PATCH_BYTES


class BadPatch(Exception):
    """It cannot be unpacked. The text says why."""


def pack(patch: bytes) -> str:
    """For `source.patch` with `patch_encoding` zlib."""
    return base64.b64encode(zlib.compress(patch, 9)).decode()


def unpack(text: str, encoding: str) -> bytes:
    """The diff. Raises BadPatch; what it may take of memory is bounded."""
    if encoding != "zlib":
        return text.encode("utf-8", "surrogateescape")
    try:
        unpacking = zlib.decompressobj()
        patch = unpacking.decompress(base64.b64decode(text, validate=True), MAX_PATCH_BYTES)
    except (zlib.error, binascii.Error, ValueError) as error:
        raise BadPatch(f"is not the base64 of a deflated diff: {error}") from None
    if not unpacking.eof:
        raise BadPatch(f"is cut off, or larger than {MAX_PATCH_BYTES >> 20} MiB when it is unpacked")
    return patch
