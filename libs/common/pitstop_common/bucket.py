"""Key-value buckets: the few operations we use, each one round trip, aware of deleted keys."""

from __future__ import annotations

from typing import NamedTuple

from nats.js.errors import APIError

from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable, WrongLastSequence
from pitstop_common.pull import read_all

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"


class Entry(NamedTuple):
    """A value and its revision. `value` None: the key is deleted."""

    value: bytes | None
    revision: int


class Bucket:
    """One bucket. Keys are dotted tokens."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name, self._root = bus, name, f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """The value now. None: never written. Raises Unavailable."""
        msg = await self._bus.request(f"$JS.API.DIRECT.GET.KV_{self._name}.{self._root}{key}")
        headers = msg.headers or {}
        if headers.get("Status") == "404":
            return None
        if "Nats-Sequence" not in headers:
            raise Unavailable(f"bucket {self._name} does not answer")
        gone = headers.get("KV-Operation") in {"DEL", "PURGE"} or "Nats-Marker-Reason" in headers
        return Entry(None if gone else msg.data, int(headers["Nats-Sequence"]))

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
                found[item.subject[len(self._root) :]] = Entry(item.data, item.seq)
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
