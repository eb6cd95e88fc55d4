"""What lets a person in to NATS: short-lived tokens, and the logins they are exchanged for. Secrets are random (256
bits) and kept as SHA-256 only. The bucket forgets each when its time is over; all times are the server's."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, Literal

import msgspec

from pitstop_common.bucket import Bucket, Entry
from pitstop_common.bus import Bus
from pitstop_common.errors import Denied, NotFound, WrongLastSequence
from pitstop_common.roles import Role
from pitstop_scheduler.clock import server_clock

TOKEN: Final = "token"
LOGIN: Final = "login"
SSH: Final = "ssh"
"""A token that is a password over SSH, and good for nothing else."""
_GRACE: Final = 60.0
"""Seconds that an entry outlives its time, so that a late comer is told what happened."""
_SSH_GRACE: Final = 3600.0
"""Of one for SSH: people come back to them."""


class Pass(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token or a login. Times are seconds since the epoch. `role`: the most that it may do, whatever its person may.
    `lasts`: of a token, how long its login will. `login`: the one that a token was used for. `job`: the only one that
    a token for SSH is good for; empty: those of the org."""

    id: str
    kind: Literal["token", "login", "ssh"]
    org: str
    user: str
    hash: str
    created: float
    expires: float
    role: Role = "admin"
    by: str = ""
    lasts: float = 0
    login: str = ""
    job: str = ""


_decode = msgspec.json.Decoder(Pass).decode


class Passes:
    """The bucket `passes`, by id."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._bucket = bus, Bucket(bus, "passes")

    async def now(self) -> float:
        """The server's clock. Raises Unavailable."""
        return await server_clock(self._bus)

    async def create(self, org: str, user: str, *, ttl: float, lasts: float, role: Role, by: str, now: float) -> str:
        """A new token: the text that its person needs, said once. Raises Unavailable."""
        id, secret = f"{TOKEN}-{secrets.token_hex(8)}", secrets.token_urlsafe(32)
        made = Pass(id=id, kind="token", org=org, user=user, hash=digest(secret), created=now, expires=now + ttl,
                    role=role, by=by, lasts=lasts)  # fmt: skip
        await self._bucket.create(id, msgspec.json.encode(made), ttl=ttl + _GRACE)
        return f"{org}.{user}.{id}.{secret}"

    async def create_ssh(self, org: str, user: str, *, ttl: float, job: str, by: str, now: float) -> str:
        """A new access token for SSH: the text that is its password, said once. Raises Unavailable."""
        id, secret = f"{SSH}-{secrets.token_hex(8)}", secrets.token_urlsafe(32)
        made = Pass(id=id, kind="ssh", org=org, user=user, hash=digest(secret), created=now, expires=now + ttl, by=by,
                    job=job)  # fmt: skip
        await self._bucket.create(id, msgspec.json.encode(made), ttl=ttl + _SSH_GRACE)
        return f"{id}.{secret}"

    async def find(self, id: str) -> Pass | None:
        """One by its id, living or over; None: there is none such. Raises Unavailable."""
        entry = await self._bucket.get(id, surely=True) if _is_id(id) else None
        return _decode(entry.value) if entry is not None and entry.value else None

    async def check(self, id: str, secret: str, now: float) -> Pass:
        """The token or login that these are; one for SSH is neither. Raises Denied, Unavailable."""
        entry = await self._bucket.get(id, surely=True) if _is_id(id) else None
        found = _sound(entry, secret, now)
        if found.kind == SSH:
            raise Denied("this token is a password for ssh; to log in here: `pitstop token create`")
        return found

    async def exchange(self, id: str, secret: str, hash: str, now: float) -> Pass:
        """The login that a token is worth, whose secret has this hash. Once; asked again with the same hash, the same
        login. Raises Denied, Unavailable."""
        while True:
            entry = await self._bucket.get(id, surely=True) if _is_id(id) else None
            token = _sound(entry, secret, now)
            assert entry is not None
            login = Pass(id=f"{LOGIN}-{digest(hash)[:16]}", kind="login", org=token.org, user=token.user, hash=hash,
                         created=now, expires=now + token.lasts, role=token.role, by=token.by)  # fmt: skip
            if token.kind != TOKEN or token.login not in {"", login.id}:
                raise Denied("this token was used already; ask for another: `pitstop token create`")
            try:
                if not token.login:
                    used = msgspec.structs.replace(token, login=login.id)
                    left = token.expires - now + _GRACE
                    await self._bucket.swap(id, msgspec.json.encode(used), entry.revision, ttl=left)
                await self._bucket.create(login.id, msgspec.json.encode(login), ttl=token.lasts + _GRACE)
            except WrongLastSequence:
                made = await self._bucket.get(login.id, surely=True)
                if made is None or made.value is None:
                    continue  # another exchange of this token was quicker
                return _decode(made.value)
            return login

    async def list(self, org: str, now: float) -> list[Pass]:
        """Those of an org that are good for something, oldest first."""
        found = [_decode(entry.value) for entry in (await self._bucket.scan("*")).values() if entry.value]
        living = [one for one in found if one.org == org and one.expires > now and not one.login]
        return sorted(living, key=lambda one: (one.created, one.id))

    async def get(self, org: str, id: str) -> Pass:
        """One of an org. Raises NotFound, Unavailable."""
        entry = await self._bucket.get(id, surely=True) if _is_id(id) else None
        found = _decode(entry.value) if entry is not None and entry.value else None
        if found is None or found.org != org:
            raise NotFound(f"org {org} has no token or login {id}; `pitstop token ls` shows those there are")
        return found

    async def revoke(self, id: str) -> None:
        """It lets nobody in from now on."""
        await self._bucket.delete(id)


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _sound(entry: Entry | None, secret: str, now: float) -> Pass:
    found = _decode(entry.value) if entry is not None and entry.value else None
    if found is None or not hmac.compare_digest(found.hash, digest(secret)):
        raise Denied("no such token or login; it may be revoked or over")
    if found.expires <= now:
        raise Denied(f"the {found.kind} {found.id} is over")
    return found


def _is_id(text: str) -> bool:
    kind, dash, rest = text.partition("-")
    return kind in {TOKEN, LOGIN, SSH} and bool(dash) and rest.isalnum() and rest.isascii() and len(rest) <= 64
