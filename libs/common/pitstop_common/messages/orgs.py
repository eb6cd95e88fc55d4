"""Facts about orgs: limits and rules, and failures that wait for a person."""

from __future__ import annotations

from pitstop_common.limits import LONGEST_SESSION, MAX_DURATION, PRESSURE
from pitstop_common.messages.parts import Message
from pitstop_common.roles import ProjectRules, Role
from pitstop_common.ssh_policy import OrgSsh


class HoldSet(Message, frozen=True, kw_only=True, tag="hold.set"):
    """The next `count` failures of jobs of `project` wait for `user`: of the job with that `key`, on that `branch`
    (empty: of any), until `until` (seconds since the epoch, by the server's clock)."""

    hold: str
    user: str
    until: float
    key: str = ""
    branch: str = ""
    count: int = 1
    by: str = ""


class HoldRemove(Message, frozen=True, kw_only=True, tag="hold.remove"):
    """No failure waits for it any more; jobs that do so already go on waiting."""

    hold: str
    by: str = ""


class OrgConfigured(Message, frozen=True, kw_only=True, tag="org.configured"):
    """New limits of an org, all of them. `slots` null: the deployment's default; 0: no limit. Lower limits never kill.
    Seconds: `pressure` is the idle limit while runs of the org wait. From the first login: `max_duration` is how long a
    session lasts when its request does not say, `longest_session` bounds what any request and `run.extend` may reach.
    `roles` null: whoever has a credential of the org has the role write. `rules`: of projects. `ssh`: how its people
    prove who they are."""

    slots: int | None = None
    weight: int = 1
    projects: dict[str, int] = {}
    pressure: float = PRESSURE
    max_duration: float = MAX_DURATION
    longest_session: float = LONGEST_SESSION
    roles: dict[str, Role] | None = None
    rules: dict[str, ProjectRules] = {}
    ssh: OrgSsh = OrgSsh()
    by: str = ""
