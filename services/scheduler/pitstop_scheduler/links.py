"""Keys that people have elsewhere: read from their sources, and kept for a while in the bucket `keys`.

A login never waits long for a source, nor does the log: an answer is good for FRESH seconds, then asked for again;
while the source is down the last good one counts, KEPT seconds at most, and it is said that it does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, WrongLastSequence
from pitstop_common.limits import MAX_LINKS
from pitstop_common.pull import rfc3339
from pitstop_common.ssh_policy import OrgSsh
from pitstop_scheduler.clock import server_clock
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.fetching import NoAccount, fetch
from pitstop_scheduler.key_sources import BadLink, Link, Source, read_keys, read_link, sources

log = logging.getLogger(__name__)

FRESH: Final = 300.0
"""Seconds that an answer counts without another question."""
KEPT: Final = 3600.0
"""Seconds that the last good answer counts while its source is down."""
WAIT: Final = 1.0
"""What a login waits for a source at most, seconds."""
AGAIN: Final = 30.0
"""After a failure nobody asks that source for so long, seconds."""
_AT_ONCE: Final = 16
_MOST: Final = 200
"""Questions under way or waiting: a request may name many users."""
_FAILURES: Final = 1000


class _Failure(NamedTuple):
    """Nobody asks again `until` then (monotonic). `settled`: the source has said that there are no keys."""

    until: float
    why: str
    settled: bool


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What a source said. `keys` as `<type> <base64>`; `at`: when, seconds since the epoch by the server's clock."""

    keys: tuple[tuple[str, str], ...]
    at: float


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bucket `keys`, `<org>.<user>.links`: what a person has linked, and what was read, by URL."""

    links: tuple[Link, ...] = ()
    fetched: dict[str, Fetched] = {}


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of one source that count now, as (key, fingerprint). `at`: when they were read; 0: never, or too long ago.
    `trouble`: why there is no newer answer."""

    source: Source
    keys: tuple[tuple[str, str], ...] = ()
    at: float = 0
    trouble: str = ""
    settled: bool = False
    """The source itself says that there are none."""

    @property
    def pending(self) -> bool:
        """Nothing is known yet."""
        return not self.at and not self.settled

    def said(self, now: float) -> str:
        """The trouble in words; empty: there is none."""
        if not self.trouble:
            return ""
        counts = f"; what it said {max(1, round((now - self.at) / 60))} min ago counts" if self.at else ""
        return f"The keys of {self.source.label} cannot be read now ({self.trouble}){counts}."


_decode = msgspec.json.Decoder(Account).decode


class Links:
    """Shared by all orgs of a scheduler. `policy` tells how an org's people prove who they are."""

    def __init__(
        self, bus: Bus, policy: Callable[[str], OrgSsh], contexts: Contexts, internal: tuple[str, ...] = ()
    ) -> None:
        self._bus, self._bucket = bus, Bucket(bus, "keys")
        self._policy, self._contexts, self._internal = policy, contexts, frozenset(internal)
        self._asking: dict[tuple[str, str, str], asyncio.Task[Linked]] = {}
        self._failed: dict[tuple[str, str], _Failure] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def of(self, org: str, user: str, *, wait: float = WAIT) -> list[Linked]:
        """What the sources of a user say, one after the other. Old answers are asked for again; `wait` seconds at most
        for all of it. Raises Unavailable."""
        account = await self._account(org, user, surely=False)
        found = self._sources(org, user, account)
        if not found:
            return []
        now = await server_clock(self._bus)
        asked = {
            source: self._ask(org, user, source)
            for source in found
            if not _is_fresh(account.fetched.get(source.url), now)
            and not self._failure(org, source.url)
            and len(self._asking) < _MOST
        }
        if asked and wait:
            await asyncio.wait(asked.values(), timeout=wait)
        return [self._known(org, source, account, asked.get(source), now) for source in found]

    async def add(self, org: str, user: str, text: str) -> Linked:
        """Link an account, and read its keys at once. Raises BadLink, Unavailable."""
        policy, now = self._policy(org), await server_clock(self._bus)
        link = msgspec.structs.replace(read_link(text, user, policy.keys_url), added=rfc3339(now))
        (source,) = sources([link], "", policy.keys_url, policy.keys_token)
        fetched = await self._fetch(org, source, now)

        def change(account: Account) -> Account:
            links = tuple(one for one in account.links if one.label != link.label)
            if len(links) >= MAX_LINKS:
                raise BadLink(f"{user} has {len(links)} links already; remove one with `pitstop keys unlink`")
            return Account(links=(*links, link), fetched={**account.fetched, source.url: fetched})

        await self._change(org, user, change)
        return Linked(source=source, keys=fetched.keys, at=fetched.at)

    async def remove(self, org: str, user: str, text: str) -> None:
        """Forget a link, and what was read there. Raises NotFound, Unavailable."""

        def change(account: Account) -> Account:
            left = tuple(link for link in account.links if link.label != text)
            if len(left) == len(account.links):
                raise NotFound(f"{user} has no link {text}; `pitstop keys ls` shows those there are")
            return msgspec.structs.replace(account, links=left)

        await self._change(org, user, change)

    async def labels(self, org: str, user: str) -> set[str]:
        """What a user has linked."""
        return {link.label for link in (await self._account(org, user)).links}

    async def owners(self, fingerprint: str, org: str = "*") -> list[tuple[str, str]]:
        """(org, user) of everybody at whose sources a key was, when they were read last. Raises Unavailable."""
        kept = sorted((await self._bucket.scan(f"{org}.*.links")).items())
        now = await server_clock(self._bus) if kept else 0.0
        found = []
        for name, entry in kept:
            of, user, _ = name.split(".")
            account = _decode(entry.value) if entry.value else Account()
            for source in self._sources(of, user, account):
                known = account.fetched.get(source.url)
                if known and now - known.at <= KEPT and any(key[1] == fingerprint for key in known.keys):
                    found.append((of, user))
                    break
        return found

    async def close(self) -> None:
        """Ask nobody any more."""
        for task in tuple(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    # -- asking ------------------------------------------------------------------------------------------------------

    def _sources(self, org: str, user: str, account: Account) -> list[Source]:
        policy = self._policy(org)
        return sources(account.links, user, policy.keys_url, policy.keys_token)

    def _ask(self, org: str, user: str, source: Source) -> asyncio.Task[Linked]:
        """One question at a time for each."""
        key = (org, user, source.url)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._renew(org, user, source))
            task.add_done_callback(lambda _done: self._asking.pop(key, None))
        return task

    async def _renew(self, org: str, user: str, source: Source) -> Linked:
        try:
            async with self._turns:
                now = await server_clock(self._bus)
                try:
                    fetched = await self._fetch(org, source, now)
                except NoAccount:
                    if source.url not in (await self._account(org, user)).fetched:  # nothing is kept of strangers
                        raise
                    fetched = Fetched(keys=(), at=now)
            await self._change(org, user, lambda account: self._with(org, user, account, source, fetched))
        except PitstopError as error:
            settled = isinstance(error, NoAccount)
            self._fails(org, source.url, _Failure(time.monotonic() + AGAIN, str(error), settled))
            log.warning("keys of %s are not read: %s", source.label, error)
            return Linked(source=source, trouble=str(error), settled=settled)
        self._failed.pop((org, source.url), None)
        return Linked(source=source, keys=fetched.keys, at=fetched.at)

    def _with(self, org: str, user: str, account: Account, source: Source, fetched: Fetched) -> Account:
        """Answers of sources that are none any more go."""
        urls = {one.url for one in self._sources(org, user, account)}
        kept = {url: one for url, one in account.fetched.items() if url in urls}
        return msgspec.structs.replace(account, fetched={**kept, source.url: fetched})

    async def _fetch(self, org: str, source: Source, now: float) -> Fetched:
        """Raises BadLink, NoKey, Unavailable."""
        token = ""
        if source.token:
            context, _, name = source.token.partition("/")
            token = (await self._contexts.values(org, context)).get(name, "")
            if not token:
                raise BadLink(f"there is no secret {source.token} to send to {source.host}")
        keys = read_keys(await fetch(source, token, self._internal), now)
        return Fetched(keys=tuple((key.line, key.fingerprint) for key in keys), at=now)

    def _known(
        self, org: str, source: Source, account: Account, asked: asyncio.Task[Linked] | None, now: float
    ) -> Linked:
        if asked is not None and asked.done() and not asked.cancelled() and asked.exception() is None:
            answer = asked.result()
            if not answer.trouble:
                return answer
        old = account.fetched.get(source.url)
        late = f"{source.host} has not answered yet" if asked is not None and not asked.done() else ""
        failure = None if _is_fresh(old, now) else self._failure(org, source.url)
        trouble = failure.why if failure else late
        if old is None or now - old.at > KEPT:
            return Linked(source=source, trouble=trouble, settled=failure is not None and failure.settled)
        return Linked(source=source, keys=old.keys, at=old.at, trouble=trouble)

    def _fails(self, org: str, url: str, failure: _Failure) -> None:
        while len(self._failed) >= _FAILURES:
            del self._failed[next(iter(self._failed))]
        self._failed[org, url] = failure

    def _failure(self, org: str, url: str) -> _Failure | None:
        found = self._failed.get((org, url))
        return found if found is not None and time.monotonic() < found.until else None

    # -- the bucket --------------------------------------------------------------------------------------------------

    async def _account(self, org: str, user: str, *, surely: bool = True) -> Account:
        """`surely`: also where a server of a cluster is behind. Most users have none, and each login looks."""
        entry = await self._bucket.get(f"{org}.{user}.links", surely=surely)
        return _decode(entry.value) if entry is not None and entry.value else Account()

    async def _change(self, org: str, user: str, change: Callable[[Account], Account]) -> None:
        while True:
            key = f"{org}.{user}.links"
            entry = await self._bucket.get(key, surely=True)
            account = change(_decode(entry.value) if entry is not None and entry.value else Account())
            try:
                await self._bucket.swap(key, msgspec.json.encode(account), entry.revision if entry else 0)
                return
            except WrongLastSequence:
                continue


def _is_fresh(known: Fetched | None, now: float) -> bool:
    return known is not None and now - known.at <= FRESH
