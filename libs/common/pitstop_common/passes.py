"""The bodies of the API about logs, and about what lets people in: keys, tokens and logins."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common.limits import (
    KEY_TTL,
    LOGIN_LASTS,
    MAX_LOG_WAIT,
    MAX_LOGIN_LASTS,
    MAX_TOKEN_TTL,
    MIN_PASS,
    TOKEN_TTL,
)
from pitstop_common.messages import LogChunk, UserKey
from pitstop_common.requests import Actor
from pitstop_common.roles import Role


class LogsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The output of a run, or of one `job` of it (by id), behind the place `after`. Where there is none yet, the answer
    waits for some: `wait` seconds at the most."""

    run: str
    job: Annotated[str, Meta(pattern=r"^([a-z2-7]{12}-[1-9][0-9]{0,2})?$", description="the id of a job")] = ""
    after: Annotated[int, Meta(ge=0)] = 0
    wait: Annotated[float, Meta(ge=0, le=MAX_LOG_WAIT)] = 0


class LogsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks in order. `after`: where to go on. `pending`: so many more are stored."""

    chunks: tuple[LogChunk, ...]
    after: int
    pending: int


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A token for `user` (left out: for oneself), good for `ttl` seconds and one login, which lasts `lasts` seconds and
    is good for verbs that need no more than `role`. With `ssh`, or a `job`: an access token instead, a password over
    SSH into jobs that its user may enter, or into that one."""

    user: Actor = ""
    ttl: Annotated[float, Meta(ge=MIN_PASS, le=MAX_TOKEN_TTL, description="seconds, 1 to a day")] = TOKEN_TTL
    lasts: Annotated[float, Meta(ge=MIN_PASS, le=MAX_LOGIN_LASTS, description="seconds, 1 to 90 days")] = LOGIN_LASTS
    role: Role = "admin"
    ssh: bool = False
    job: Annotated[str, Meta(pattern=r"^([a-z2-7]{12}-[1-9][0-9]{0,2})?$", description="the id of a job")] = ""

    @property
    def for_ssh(self) -> bool:
        """Is it an access token that is asked for."""
        return self.ssh or bool(self.job)


class TokenMade(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is said here and nowhere else. `job`: the only one that it is good for."""

    id: str
    token: str
    user: str
    role: Role
    expires: str
    job: str = ""


class TokenRevoke(msgspec.Struct, frozen=True, kw_only=True):
    """A token or a login by its id."""

    id: str


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A token for a login. `hash`: SHA-256 in hex of the secret that the caller made up for it."""

    token: str
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="a SHA-256 in hex")]


class LoginReply(msgspec.Struct, frozen=True, kw_only=True):
    """The login: NATS user `id`, with the secret that the caller made up as password."""

    id: str
    org: str
    user: str
    role: Role
    expires: str


class PassView(msgspec.Struct, frozen=True, kw_only=True):
    """A token, a login or an access token for SSH (`kind`), of `user`, made by `by`. `job`: the only one it is for."""

    id: str
    kind: Literal["token", "login", "ssh"]
    user: str
    role: Role
    by: str
    created: str
    expires: str
    job: str = ""


class PassList(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's own; of an admin, everybody's in the org."""

    passes: tuple[PassView, ...]


class KeyAdd(msgspec.Struct, frozen=True, kw_only=True):
    """A public key: one line of a `.pub` file. `seconds`: forget it after so long; left out: never."""

    key: str
    seconds: Annotated[float, Meta(gt=0, le=KEY_TTL, description="seconds, at most 10 minutes")] | UnsetType = UNSET


class KeyRemove(msgspec.Struct, frozen=True, kw_only=True):
    """`SHA256:…`"""

    fingerprint: str


class KeyLink(msgspec.Struct, frozen=True, kw_only=True):
    """An account elsewhere: `github:ada`, `org:ada`, or its URL."""

    source: Annotated[str, Meta(min_length=1, max_length=500)]


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A source of keys of the caller. `link`: what `keys-unlink` takes; empty: the org's own, for everybody. `keys`:
    the fingerprints that count now; `read`: when they were read, `age` seconds ago; empty: never, or too long ago.
    `trouble`: why there is no newer answer."""

    source: str
    url: str
    link: str = ""
    keys: tuple[str, ...] = ()
    read: str = ""
    age: int = 0
    trouble: str = ""


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's own keys, and sources of more."""

    keys: tuple[UserKey, ...]
    links: tuple[LinkView, ...] = ()
