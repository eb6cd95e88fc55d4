"""Who may enter: registered keys in the bucket `keys`, one list a user, and the keys that came with a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, WrongLastSequence
from pitstop_common.limits import MAX_SSH_KEYS
from pitstop_common.messages import AllowedKey, Person, UserKey
from pitstop_common.public_keys import PublicKey, parse_public_key
from pitstop_scheduler.clock import server_clock
from pitstop_scheduler.links import Linked, Links


class Found(NamedTuple):
    """Keys, and what the sources of each user said who has any."""

    keys: list[AllowedKey]
    linked: dict[str, tuple[Linked, ...]]

    @property
    def pending(self) -> frozenset[str]:
        """Users of whom a source has said nothing yet."""
        return frozenset(user for user, sources in self.linked.items() if any(one.pending for one in sources))

    def trouble(self, now: float) -> str:
        """What is wrong with the sources, in words."""
        said = (one.said(now) for sources in self.linked.values() for one in sources)
        return " ".join(dict.fromkeys(filter(None, said)))


_decode = msgspec.json.Decoder(list[UserKey]).decode


class TooManyKeys(PitstopError):
    """A user has as many keys as one may have."""

    code = "too_many_keys"


class People:
    """Keys of users."""

    def __init__(self, bus: Bus, links: Links) -> None:
        self._bus, self._bucket, self._links = bus, Bucket(bus, "keys"), links

    async def keys(self, org: str, user: str) -> list[UserKey]:
        """Of one user; empty when there are none."""
        entry = await self._bucket.get(f"{org}.{user}", surely=True)
        return await self._living(_decode(entry.value) if entry is not None and entry.value is not None else [])

    async def add(self, org: str, user: str, key: PublicKey, added: str, *, until: float = 0) -> UserKey:
        """Register a key, for good or until a time of the server's clock; the same key again is no error. Raises
        TooManyKeys."""
        new = UserKey(key=key.line, fingerprint=key.fingerprint, comment=key.comment, added=added, until=until)
        now = await self.now()

        def change(keys: list[UserKey]) -> list[UserKey]:
            keys = [one for one in keys if not one.until or one.until > now]
            if len(keys) >= MAX_SSH_KEYS:
                raise TooManyKeys(f"{user} has {len(keys)} keys already; remove one with `pitstop keys rm`")
            return [*(one for one in keys if one.fingerprint != new.fingerprint), new]

        await self._change(org, user, change)
        return new

    async def remove(self, org: str, user: str, fingerprint: str) -> None:
        """Forget a key. Raises NotFound."""

        def change(keys: list[UserKey]) -> list[UserKey]:
            left = [one for one in keys if one.fingerprint != fingerprint]
            if len(left) == len(keys):
                raise NotFound(f"{user} has no key {fingerprint}; `pitstop keys ls` shows those there are")
            return left

        await self._change(org, user, change)

    async def allowed(
        self, org: str, actor: str, users: tuple[str, ...], keys: tuple[str, ...], *, wait: float = 0
    ) -> Found:
        """Every key that may enter, once: of the users, and raw ones, which count as the actor. Sources of linked keys
        are waited for so long, seconds, where what they said is not fresh."""
        found = [_allowed(actor, parse_public_key(key)) for key in keys]
        named = [user for user in dict.fromkeys(users) if user]
        linked, registered = await asyncio.gather(
            asyncio.gather(*(self._links.of(org, user, wait=wait) for user in named)),
            asyncio.gather(*(self.keys(org, user) for user in named)),
        )
        for user, sources, keys_of in zip(named, linked, registered, strict=True):
            own = [(key.key, key.fingerprint) for key in keys_of]
            for key, mark in (*own, *(key for source in sources for key in source.keys)):
                found.append(AllowedKey(user=user, key=key, fingerprint=mark))
        return Found(
            list({(key.user, key.fingerprint): key for key in found}.values()),
            {user: tuple(sources) for user, sources in zip(named, linked, strict=True) if sources},
        )

    async def may_prove(self, org: str, user: str) -> bool:
        """Has a user keys, registered or linked, or sources that may still say some."""
        found = await self.allowed(org, "", (user,), ())
        return bool(found.keys) or user in found.pending

    async def owner_of(self, org: str, fingerprint: str) -> str:
        """Whose key it is; empty when nobody of the org registered it."""
        for name, entry in (await self._bucket.scan(f"{org}.*")).items():
            if entry.value and any(key.fingerprint == fingerprint for key in _decode(entry.value)):
                return name.partition(".")[2]
        return next((user for _, user in await self._links.owners(fingerprint, org)), "")

    async def owners_of(self, fingerprint: str) -> list[Person]:
        """Everybody who registered or linked a key, in any org."""
        found = []
        for name, entry in sorted((await self._bucket.scan("*.*")).items()):
            if entry.value and any(key.fingerprint == fingerprint for key in _decode(entry.value)):
                org, _, user = name.partition(".")
                found.append(Person(org=org, user=user))
        found += [Person(org=org, user=user) for org, user in await self._links.owners(fingerprint)]
        return list(dict.fromkeys(found))

    async def now(self) -> float:
        """The server's clock. Raises Unavailable."""
        return await server_clock(self._bus)

    async def _living(self, keys: list[UserKey]) -> list[UserKey]:
        if not any(key.until for key in keys):
            return keys
        now = await self.now()
        return [key for key in keys if not key.until or key.until > now]

    async def _change(self, org: str, user: str, change: Callable[[list[UserKey]], list[UserKey]]) -> None:
        while True:
            entry = await self._bucket.get(f"{org}.{user}")
            before = _decode(entry.value) if entry is not None and entry.value is not None else []
            try:
                await self._bucket.swap(
                    f"{org}.{user}", msgspec.json.encode(change(before)), entry.revision if entry else 0
                )
                return
            except WrongLastSequence:
                continue


def _allowed(actor: str, key: PublicKey) -> AllowedKey:
    return AllowedKey(user=actor, key=key.line, fingerprint=key.fingerprint)
