"""The bodies of the API about an org: its limits, roles and rules."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common.api_pools import PoolView
from pitstop_common.limits import (
    LONGEST_SESSION,
    MAX_DURATION,
    MAX_POLICY_SECONDS,
    MAX_PROJECTS,
    MAX_SLOTS,
    MAX_WEIGHT,
    MIN_PRESSURE,
    PRESSURE,
)
from pitstop_common.requests import Project, Seconds
from pitstop_common.roles import Role, Roles, Rules
from pitstop_common.ssh_policy import OrgSsh

_SLOTS = Annotated[int, Meta(ge=0, le=MAX_SLOTS)]


class OrgLimits(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of an org: what is left out becomes the default. Slots: jobs at once, 0: no limit. `weight`: its share
    when orgs compete. Seconds: `pressure` is the idle limit while runs of the org wait. From the first login:
    `max_duration` is how long a session lasts when its request does not say, `longest_session` the most that a request
    may say or an extension reach. `roles` null: whoever has a credential of the org has the role write. `rules`: what
    projects say for themselves. `ssh`: sources of keys and authorities of certificates."""

    slots: _SLOTS | UnsetType = UNSET
    weight: Annotated[int, Meta(ge=1, le=MAX_WEIGHT)] = 1
    projects: Annotated[dict[Project, _SLOTS], Meta(max_length=MAX_PROJECTS)] = {}
    pressure: Annotated[float, Meta(ge=MIN_PRESSURE, le=MAX_POLICY_SECONDS)] = PRESSURE
    max_duration: Seconds = MAX_DURATION
    longest_session: Seconds = LONGEST_SESSION
    roles: Roles | None = None
    rules: Rules = {}
    ssh: OrgSsh = OrgSsh()


class OrgView(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of an org, and what is in use. `configured`: they were set for it; else they are the deployment's.
    `slots`: in force, 0: no limit; `own_slots` null: that is the default of the deployment. `used` slots, `debug` of
    them for sessions; `waiting` jobs. `roles` null: there is no table, so everybody has the role write. `role`: the
    caller's own. `pools`: those that the orgs share."""

    org: str
    configured: bool
    slots: int
    own_slots: int | None
    used: int
    debug: int
    waiting: int
    weight: int
    projects: dict[str, int]
    used_by_project: dict[str, int]
    pressure: float
    max_duration: float
    longest_session: float
    roles: dict[str, Role] | None = None
    rules: Rules = {}
    ssh: OrgSsh = OrgSsh()
    role: Role = "none"
    pools: tuple[PoolView, ...] = ()
