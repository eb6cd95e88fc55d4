"""The bodies of the API's verbs about holds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pitstop_common.limits import HOLD_FOR, MAX_HOLD_COUNT, MAX_HOLD_SECONDS, MAX_NAME_CHARS, MAX_REF_CHARS
from pitstop_common.requests import Actor, Project


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Have the next `count` failures of jobs that start from now on wait for `user` (the caller, if none is named):
    jobs of the project, with that key, of a run of that branch; empty: of any. It is forgotten after `seconds`. `id`:
    the caller's own name of it."""

    project: Project
    id: Annotated[str, Meta(pattern=r"^[a-z0-9]{0,16}$", description="lower-case letters and digits, at most 16")] = ""
    job: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] = ""
    branch: Annotated[str, Meta(max_length=MAX_REF_CHARS)] = ""
    count: Annotated[int, Meta(ge=1, le=MAX_HOLD_COUNT)] = 1
    user: Actor = ""
    seconds: Annotated[float, Meta(gt=0, le=MAX_HOLD_SECONDS)] = HOLD_FOR


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """A hold: `left` failures still wait for `user`, until `until` (RFC 3339)."""

    hold: str
    project: str
    job: str
    branch: str
    user: str
    by: str
    left: int
    until: str


class HoldList(msgspec.Struct, frozen=True, kw_only=True):
    """Those of the projects that the caller may see, oldest first."""

    holds: tuple[HoldView, ...]


class HoldRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """A hold by its id."""

    hold: str
