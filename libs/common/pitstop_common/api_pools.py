"""The bodies of the API's verb about pools."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common.limits import MAX_POOLS, MAX_SLOTS
from pitstop_common.requests import Pool


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one pool. `slots`: jobs of all orgs that hold a slot of it at once, 0: no limit; left out: the default
    of the deployment."""

    slots: Annotated[int, Meta(ge=0, le=MAX_SLOTS)] | UnsetType = UNSET


Pools = Annotated[dict[Pool, PoolLimits], Meta(max_length=MAX_POOLS)]


class PoolsApply(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of the pools that are named; others stay as they are. Orgs share pools, so it takes an
    admin of the deployment."""

    pools: Pools


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, with the jobs of all orgs. `slots`: in force, 0: no limit; `own_slots` null: that is the default of the
    deployment. `used` slots; `places` that its hosts have for jobs."""

    pool: str
    slots: int
    own_slots: int | None
    used: int
    places: int


class PoolsView(msgspec.Struct, frozen=True, kw_only=True):
    """Pools that have hosts, jobs or a limit of their own, by name."""

    pools: tuple[PoolView, ...]
