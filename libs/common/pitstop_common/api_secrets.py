"""The bodies of the API's verbs about secrets. A value travels in one of them only, towards the scheduler."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common.limits import MAX_MEMBERS, MAX_PROJECTS, MAX_SECRET_BYTES, SECRET
from pitstop_common.requests import Context, Project, User, whole

SecretName = Annotated[
    str,
    Meta(pattern=whole(SECRET), description="a variable: letters, digits and _, no digit first, at most 128"),
]  # fmt: skip
SecretValue = Annotated[
    str, Meta(min_length=1, max_length=MAX_SECRET_BYTES, pattern=r"^[^\x00]*$", description="text without a NUL byte")
]
Members = Annotated[list[User], Meta(max_length=MAX_MEMBERS)]
Projects = Annotated[list[Project], Meta(max_length=MAX_PROJECTS)]


class SecretSet(msgspec.Struct, frozen=True, kw_only=True):
    """Set a secret; its context is made when it is not there."""

    context: Context
    name: SecretName
    value: SecretValue


class SecretsList(msgspec.Struct, frozen=True, kw_only=True):
    """`context` empty: all of the org."""

    context: Context | None = None


class SecretRemove(msgspec.Struct, frozen=True, kw_only=True):
    """`name` left out: the whole context with all that it holds."""

    context: Context
    name: SecretName | None = None


class ContextRestrict(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use a context; what is left out stays. `members`, `projects` null: all of the org. `publisher`: may runs
    that the org's machine credential asks for have it. The context is made when it is not there."""

    context: Context
    members: Members | UnsetType | None = UNSET
    projects: Projects | UnsetType | None = UNSET
    publisher: bool | UnsetType = UNSET


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its value: when it was set (RFC 3339) and by whom."""

    name: str
    time: str
    by: str


class ContextView(msgspec.Struct, frozen=True, kw_only=True):
    """A context. `members`, `projects` null: all of the org."""

    context: str
    members: tuple[str, ...] | None
    projects: tuple[str, ...] | None
    publisher: bool
    time: str
    by: str
    secrets: tuple[SecretView, ...]


class ContextList(msgspec.Struct, frozen=True, kw_only=True):
    """Contexts by name. `unusable`: why no secret of them can be used now; empty: they can. `old`: how many are not
    encrypted with the current key yet."""

    contexts: tuple[ContextView, ...]
    unusable: str = ""
    old: int = 0
