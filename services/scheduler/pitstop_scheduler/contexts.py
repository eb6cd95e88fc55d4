"""Contexts in the bucket `secrets`: one entry each (`<org>.<context>`), so that a change is one compare-and-set."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from pitstop_common.bucket import Bucket, Entry
from pitstop_common.bus import Bus
from pitstop_common.errors import Denied, NotFound, PitstopError, WrongLastSequence
from pitstop_common.limits import MAX_CONTEXT_BYTES, MAX_CONTEXT_LINES, MAX_CONTEXTS, MAX_SECRETS
from pitstop_common.roles import Role
from pitstop_scheduler.context_rules import Context, Secret, closed_to, outside, refusal
from pitstop_scheduler.keyring import Keyring, NoKey
from pitstop_scheduler.roles import Barred

log = logging.getLogger(__name__)

_decode: Final = msgspec.json.Decoder(Context).decode
_AGAIN: Final = 5.0
_OVERHEAD: Final = 16
"""Bytes that encryption adds to a value."""


class TooMany(PitstopError):
    """The context, or the org, has no room for it."""

    code = "too_many_secrets"


class Changer(NamedTuple):
    """Who changes a context, and their role in the org."""

    name: str
    role: Role


class Contexts:
    """All contexts of all orgs."""

    def __init__(self, bus: Bus, keys: Keyring, admins: Callable[[str], str]) -> None:
        """`admins`: who can change the rules of an org, in words."""
        self._bucket = Bucket(bus, "secrets")
        self._keys, self._admins = keys, admins

    async def get(self, org: str, name: str) -> Context | None:
        """Without its values in the clear. Raises Unavailable."""
        entry = await self._bucket.get(f"{org}.{name}")
        return _decode(entry.value) if entry is not None and entry.value is not None else None

    async def refusals(
        self, org: str, names: Iterable[str], *, actor: str, project: str, vouched: bool
    ) -> dict[str, str]:
        """Why a run may not have these contexts, by name; empty when it may. Raises Unavailable."""
        found: dict[str, str] = {}
        for name in names:
            why = self.unusable() or refusal(
                name, await self.get(org, name), actor=actor, project=project, vouched=vouched,
                admins=self._admins(org),
            )  # fmt: skip
            if why:
                found[name] = why
        return found

    async def closed(self, org: str, names: Iterable[str]) -> Callable[[str], Barred | None]:
        """What keeps a user out of the sessions of a job with these contexts. Raises Unavailable."""
        found = {name: await self.get(org, name) for name in names}
        return lambda user: outside(found, user, self._admins(org))

    async def all(self, org: str) -> dict[str, Context]:
        """Those of an org, by name. Raises Unavailable."""
        found = await self._bucket.scan(f"{org}.*")
        named = {key.partition(".")[2]: _decode(entry.value) for key, entry in found.items() if entry.value is not None}
        return dict(sorted(named.items()))

    async def set(self, org: str, name: str, secret: str, value: str, by: Changer, now: str) -> Context:
        """Raises Denied, TooMany, NoKey, Unavailable."""
        lines = max(1, len(value.splitlines()))
        new = Secret(value=self._keys.encrypt(value, org, name, secret), lines=lines, time=now, by=by.name)

        def change(context: Context) -> Context:
            held = context.secrets | {secret: new}
            size = sum(len(one.value.data) - _OVERHEAD for one in held.values())
            lines = sum(one.lines for one in held.values())
            if len(held) > MAX_SECRETS or size > MAX_CONTEXT_BYTES or lines > MAX_CONTEXT_LINES:
                raise TooMany(
                    f"context {name} would hold {len(held)} secrets of {size} bytes and {lines} lines; at most"
                    f" {MAX_SECRETS}, {MAX_CONTEXT_BYTES} and {MAX_CONTEXT_LINES} fit. Use another context (or, for a"
                    " long file, base64 without line breaks)"
                )
            return msgspec.structs.replace(context, secrets=held)

        return await self._change(org, name, by, now, change)

    async def restrict(self, org: str, name: str, by: Changer, now: str, **fields: object) -> Context:
        """Set fields of Context. Raises Denied, TooMany, Unavailable."""
        return await self._change(org, name, by, now, lambda context: msgspec.structs.replace(context, **fields))

    async def remove(self, org: str, name: str, secret: str | None, by: Changer, now: str) -> None:
        """One secret, or (None) the whole context. Raises NotFound, Denied, Unavailable."""

        def change(context: Context) -> Context | None:
            if secret is None:
                return None
            if secret not in context.secrets:
                raise NotFound(f"context {name} has no secret {secret}; `pitstop secrets ls {name}` shows those it has")
            return msgspec.structs.replace(
                context, secrets={key: one for key, one in context.secrets.items() if key != secret}
            )

        await self._change(org, name, by, now, change, make=False)

    async def values(self, org: str, name: str) -> dict[str, str]:
        """The secrets of a context in the clear; none of one that is gone. Raises NoKey, Unavailable."""
        context = await self.get(org, name) or Context()
        return {key: self._keys.decrypt(one.value, org, name, key) for key, one in context.secrets.items()}

    def unusable(self) -> str:
        """Why no secret can be used at all; empty when they can."""
        if self._keys:
            return ""
        return ("the scheduler has no key for secrets. Who operates it can set one: PITSTOP_SECRETS_KEY_FILE, with a "
                "line of `pitstop secrets new-key`")  # fmt: skip

    def old(self, context: Context) -> int:
        """How many of its secrets are not encrypted with the current key."""
        return sum(one.value.key != self._keys.current for one in context.secrets.values())

    async def renew_all(self, stopping: asyncio.Event) -> None:
        """`renew`, as soon as NATS lets it. Never fails."""
        while not stopping.is_set():
            try:
                if renewed := await self.renew():
                    log.info("%d secrets are encrypted with the current key now", renewed)
                return
            except PitstopError as error:
                log.warning("secrets of older keys are looked for again: %s", error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await stopping.wait()

    async def renew(self) -> int:
        """Encrypt with the current key whatever an older one of the file opens; the number of those secrets. What no
        key opens stays as it is, and is said. Raises Unavailable."""
        renewed = 0
        for key, entry in (await self._bucket.scan()).items() if self._keys else ():
            renewed += await self._renew(key, entry)
        return renewed

    async def _renew(self, key: str, entry: Entry) -> int:
        org, _, name = key.partition(".")
        if entry.value is None:
            return 0
        context = _decode(entry.value)
        fresh: dict[str, Secret] = {}
        for secret, one in context.secrets.items():
            if one.value.key == self._keys.current:
                continue
            try:
                value = self._keys.decrypt(one.value, org, name, secret)
            except NoKey as error:
                log.error("org %s: %s", org, error)
                continue
            fresh[secret] = msgspec.structs.replace(one, value=self._keys.encrypt(value, org, name, secret))
        if not fresh:
            return 0
        try:
            await self._write(key, msgspec.structs.replace(context, secrets=context.secrets | fresh), entry.revision)
        except WrongLastSequence:  # changed meanwhile, by a person or by another scheduler that does the same
            return 0
        return len(fresh)

    async def _change(self, org: str, name: str, by: Changer, now: str, change: Callable[[Context], Context | None], *,
                      make: bool = True) -> Context:  # fmt: skip
        while True:
            entry = await self._bucket.get(f"{org}.{name}")
            before = _decode(entry.value) if entry is not None and entry.value is not None else None
            if before is None and not make:
                raise NotFound(f"there is no context {name} in org {org}; `pitstop secrets ls` shows those there are")
            if before is not None and (why := closed_to(name, before, by.name, by.role, self._admins(org))):
                raise Denied(why)
            if before is None and len(await self.all(org)) >= MAX_CONTEXTS:
                raise TooMany(f"org {org} has {MAX_CONTEXTS} contexts already; remove one with `pitstop secrets rm`")
            after = change(before or Context(time=now, by=by.name))
            try:
                await self._write(f"{org}.{name}", after, entry.revision if entry else 0)
                return after or Context()
            except WrongLastSequence:
                continue

    async def _write(self, key: str, context: Context | None, revision: int) -> None:
        if context is None:
            await self._bucket.delete(key, revision)
        else:
            await self._bucket.swap(key, msgspec.json.encode(context), revision)
