"""What a decision can change of an org: its limits and its holds."""

from __future__ import annotations

import msgspec

from pitstop_common.limits import MAX_DURATION
from pitstop_common.roles import ProjectRules, Role
from pitstop_common.ssh_policy import OrgSsh


class Limits(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="m"):
    """Limits and rules of an org from now on. 0 = none; `slots` None: the default; `roles` None: no table."""

    org: str
    slots: int | None
    weight: int
    projects: dict[str, int]
    pressure: float
    longest_session: float
    max_duration: float = MAX_DURATION
    roles: dict[str, Role] | None = None
    rules: dict[str, ProjectRules] = {}
    ssh: OrgSsh = OrgSsh()


class Defaults(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="k"):
    """Limits of orgs and pools that nobody configured, as the owner of this epoch was started with. 0 = none. And
    which of how many partitions this log is."""

    org_slots: int
    project_slots: int
    pool_slots: int
    partition: int = 0
    partitions: int = 1


class HoldSet(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="ha"):
    """The next `count` failures of such jobs wait for `user`, until `until` (seconds since the epoch). Empty `key` or
    `branch`: of any."""

    org: str
    hold: str
    project: str
    key: str
    branch: str
    user: str
    by: str
    count: int
    until: float


class HoldRemoved(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="hr"):
    """A person removed it. `forget`: its time is over, and nothing of it needs to be known any more."""

    org: str
    hold: str
    by: str
    forget: bool


class HoldUsed(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="hu"):
    """A job has failed and waits for the hold's user: one failure less."""

    org: str
    hold: str
    job: str
