"""A person's own keys: registered ones, and accounts elsewhere."""

from __future__ import annotations

import time

from msgspec import UNSET
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common.api import Done
from pitstop_common.passes import KeyAdd, KeyLink, KeyList, LinkView
from pitstop_common.public_keys import parse_public_key
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import Caller, checked, text_of
from pitstop_scheduler.links import Linked, Links
from pitstop_scheduler.people import People

_PATIENCE = 3.0
"""Seconds that a person waits for sources in a list."""


class Keys:
    """Verbs about keys."""

    def __init__(self, people: People, links: Links) -> None:
        self._people, self._links = people, links

    async def add(self, caller: Caller, asked: MicroRequest) -> m.UserKey:
        """Raises Wrong, BadKey, TooManyKeys, Unavailable."""
        wanted = checked(asked, KeyAdd)
        key = parse_public_key(text_of(asked, "key"))
        until = 0.0 if wanted.seconds is UNSET else await self._people.now() + wanted.seconds
        return await self._people.add(caller.org, caller.actor, key, rfc3339(time.time()), until=until)

    async def list(self, caller: Caller, _: MicroRequest) -> KeyList:
        """Raises Unavailable."""
        own = tuple(await self._people.keys(caller.org, caller.actor))
        linked = await self._links.of(caller.org, caller.actor, wait=_PATIENCE)
        mine = await self._links.labels(caller.org, caller.actor)
        now = await self._people.now()
        return KeyList(keys=own, links=tuple(_view(one, now, mine) for one in linked))

    async def remove(self, caller: Caller, asked: MicroRequest) -> Done:
        """Raises Wrong, NotFound, Unavailable."""
        await self._people.remove(caller.org, caller.actor, text_of(asked, "fingerprint"))
        return Done(ok=True)

    async def link(self, caller: Caller, asked: MicroRequest) -> LinkView:
        """Raises Wrong, BadLink, Unavailable."""
        made = await self._links.add(caller.org, caller.actor, checked(asked, KeyLink).source)
        return _view(made, made.at, {made.source.label})

    async def unlink(self, caller: Caller, asked: MicroRequest) -> Done:
        """Raises Wrong, NotFound, Unavailable."""
        await self._links.remove(caller.org, caller.actor, checked(asked, KeyLink).source)
        return Done(ok=True)


def _view(one: Linked, now: float, mine: set[str]) -> LinkView:
    label = one.source.label
    return LinkView(
        source=label, url=one.source.url, link=label if label in mine else "", keys=tuple(mark for _, mark in one.keys),
        read=rfc3339(one.at) if one.at else "", age=max(0, round(now - one.at)) if one.at else 0, trouble=one.trouble,
    )  # fmt: skip
