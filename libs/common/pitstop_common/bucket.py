"""Key-value buckets: the few operations we use, each one round trip, aware of deleted keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple

from nats.js.errors import APIError

from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable, WrongLastSequence
from pitstop_common.pull import read_all

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class Entry(NamedTuple):
    """A value and its revision. `value` None: the key is deleted. `stored`: when, by the server's clock, seconds since
    the epoch; only a scan says it."""

    value: bytes | None
    revision: int
    stored: float = 0.0


class Newest(NamedTuple):
    """The newest message of a subject."""

    data: bytes
    seq: int
    headers: Mapping[str, str]


async def newest(bus: Bus, stream: str, subject: str, *, surely: bool = False) -> Newest | None:
    """The newest message of a subject; None: there is none. In a cluster any server may answer, and one may be behind:
    with `surely`, what one does not have is asked of the leader (it takes the right to STREAM.MSG.GET). Raises
    Unavailable."""
    msg = await bus.request(f"$JS.API.DIRECT.GET.{stream}.{subject}")
    headers = msg.headers or {}
    if "Nats-Sequence" in headers:
        return Newest(msg.data, int(headers["Nats-Sequence"]), headers)
    if headers.get("Status") != "404":
        raise Unavailable(f"stream {stream} does not answer")
    return await _of_the_leader(bus, stream, subject) if surely else None


async def _of_the_leader(bus: Bus, stream: str, subject: str) -> Newest | None:
    try:
        found = (await bus.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))["message"]
    except APIError as error:
        if error.code == 404:
            return None
        raise Unavailable(str(error)) from error
    lines = base64.b64decode(found.get("hdrs", "")).decode(errors="replace").split("\r\n")[1:]
    headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Newest(base64.b64decode(found.get("data", "")), int(found["seq"]), headers)


class Bucket:
    """One bucket. Keys are dotted tokens."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name, self._root = bus, name, f"$KV.{name}."

    async def get(self, key: str, *, surely: bool = False) -> Entry | None:
        """The value now. None: never written (`surely`: as `newest` says). Raises Unavailable."""
        found = await newest(self._bus, f"KV_{self._name}", self._root + key, surely=surely)
        if found is None:
            return None
        gone = found.headers.get("KV-Operation") in {"DEL", "PURGE"} or "Nats-Marker-Reason" in found.headers
        return Entry(None if gone else found.data, found.seq)

    async def put(self, key: str, value: bytes) -> int:
        """Write, whatever is there. Returns the revision. Raises Unavailable."""
        return (await self._bus.store(self._root + key, value)).seq

    async def create(self, key: str, value: bytes, *, ttl: float = 0) -> int:
        """Write a key that is not there. Raises WrongLastSequence when it is, Unavailable."""
        try:
            return await self.swap(key, value, 0, ttl=ttl)
        except WrongLastSequence:
            entry = await self.get(key)
            if entry is None or entry.value is not None:
                raise
            return await self.swap(key, value, entry.revision, ttl=ttl)

    async def swap(self, key: str, value: bytes, revision: int, *, ttl: float = 0) -> int:
        """Write if `revision` is still the newest of the key (compare and set)."""
        headers = {_EXPECTED: str(revision)}
        if ttl:
            headers["Nats-TTL"] = f"{int(ttl)}s"
        return (await self._bus.store(self._root + key, value, headers)).seq

    async def delete(self, key: str, revision: int | None = None, *, ttl: float = 0) -> None:
        """Delete; no error when it is not there. With `revision`: only if that is still the newest of the key, else
        WrongLastSequence. `ttl`: seconds after which the marker of the deletion goes, too."""
        headers = {"KV-Operation": "DEL"}
        if ttl:
            headers["Nats-TTL"] = f"{int(ttl)}s"
        if revision is not None:
            headers[_EXPECTED] = str(revision)
        await self._bus.store(self._root + key, b"", headers)

    async def scan(self, pattern: str = ">") -> dict[str, Entry]:
        """All living keys that match a subject pattern."""
        found: dict[str, Entry] = {}
        for item in await read_all(self._bus, f"KV_{self._name}", self._root + pattern, last_per_subject=True):
            if item.headers.get("KV-Operation") not in {"DEL", "PURGE"} and "Nats-Marker-Reason" not in item.headers:
                found[item.subject[len(self._root) :]] = Entry(item.data, item.seq, item.stored)
        return found

    async def names(self, pattern: str = ">") -> list[str]:
        """Keys that match a subject pattern, deleted ones among them, in one round trip. Raises Unavailable."""
        body = {"subjects_filter": self._root + pattern}
        try:
            reply = await self._bus.api(f"STREAM.INFO.KV_{self._name}", body)
        except APIError as error:
            raise Unavailable(str(error)) from error
        return [subject[len(self._root) :] for subject in reply["state"].get("subjects") or {}]

    def subject(self, key: str) -> str:
        """The subject behind a key, for pipelined writes."""
        return self._root + key
