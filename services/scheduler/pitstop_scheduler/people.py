"""Who may enter: registered keys in the bucket `keys`, one list a user, and the keys that came with a request."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, WrongLastSequence
from pitstop_common.limits import MAX_SSH_KEYS
from pitstop_common.messages import AllowedKey, Person, UserKey
from pitstop_common.public_keys import PublicKey, parse_public_key
from pitstop_scheduler.clock import server_clock

_decode = msgspec.json.Decoder(list[UserKey]).decode


class TooManyKeys(PitstopError):
    """A user has as many keys as one may have."""

    code = "too_many_keys"


class People:
    """Keys of users."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._bucket = bus, Bucket(bus, "keys")

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

    async def allowed(self, org: str, actor: str, users: tuple[str, ...], keys: tuple[str, ...]) -> list[AllowedKey]:
        """Every key that may enter, once: of the users, and raw ones, which count as the actor."""
        found = [_allowed(actor, parse_public_key(key)) for key in keys]
        for user in dict.fromkeys(users):
            if user:
                found += [
                    AllowedKey(user=user, key=key.key, fingerprint=key.fingerprint)
                    for key in await self.keys(org, user)
                ]
        return list({(key.user, key.fingerprint): key for key in found}.values())

    async def owner_of(self, org: str, fingerprint: str) -> str:
        """Whose key it is; empty when nobody of the org registered it."""
        for name, entry in (await self._bucket.scan(f"{org}.*")).items():
            if entry.value and any(key.fingerprint == fingerprint for key in _decode(entry.value)):
                return name.partition(".")[2]
        return ""

    async def owners_of(self, fingerprint: str) -> list[Person]:
        """Everybody who registered a key, in any org."""
        found = []
        for name, entry in sorted((await self._bucket.scan("*.*")).items()):
            if entry.value and any(key.fingerprint == fingerprint for key in _decode(entry.value)):
                org, _, user = name.partition(".")
                found.append(Person(org=org, user=user))
        return found

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
