"""Who may do what in an org: its roles and the rules of its projects. Pure.

An admin of the org is one in every project. Else the nearest word counts: of the project about the person, of the
project about everybody ("*"), of the org about the person, of the org about everybody; a person nobody names has the
role none, and write in an org without a table of roles.
"""

from __future__ import annotations

import msgspec

from pitstop_common.messages import Barrier
from pitstop_common.roles import EVERYBODY, ROLES, ProjectRules, Role, at_least
from pitstop_scheduler.model import Org


class Barred(msgspec.Struct, frozen=True):
    """Why a person cannot enter: a stable code; the cause, who can change it and the command."""

    code: Barrier
    text: str


def org_role(org: Org, user: str) -> Role:
    """The role of a person in the org itself."""
    if org.roles is None:
        return "write"
    return org.roles.get(user) or org.roles.get(EVERYBODY) or "none"


def project_role(org: Org, user: str, project: str) -> Role:
    """The role of a person in a project."""
    general = org_role(org, user)
    own = org.rules.get(project, ProjectRules()).roles
    if general == "admin":
        return "admin"
    return own.get(user) or own.get(EVERYBODY) or general


def highest_role(org: Org, user: str) -> Role:
    """The most that a person may do anywhere in the org."""
    roles = [org_role(org, user), *(project_role(org, user, project) for project in org.rules)]
    return max(roles, key=ROLES.index)


def may_enter(org: Org, name: str, project: str, user: str, role: Role) -> Barred | None:
    """Whether the rules of an org let a person with `role` into sessions of a project. None: they do. Asked before a
    run starts, at each rerun, and at each login."""
    rules = org.rules.get(project, ProjectRules())
    if not rules.ssh:
        return Barred(
            "ssh_disabled",
            f"SSH is disabled for project {name}/{project}. {admins(org, name)} can allow it: `ssh = true` under "
            f"[projects.{project}] in the org's file, then `pitstop apply -f org.toml`",
        )
    if not at_least(role, rules.ssh_role):
        return Barred(
            "ssh_role",
            f"{user or 'nobody (no actor is named)'} has the role {role} in {name}/{project}, and SSH needs "
            f"{rules.ssh_role}. {admins(org, name)} can change it: {_line(user, rules.ssh_role)} in the org's file, "
            "then `pitstop apply -f org.toml`",
        )
    return None


def too_little(org: Org, name: str, user: str, role: Role, needed: Role, what: str) -> str:
    """The text of a refusal: `what` is what was asked for, with its place."""
    return (f"{what} needs the role {needed}, and {user} has {role}. {admins(org, name)} can change it: "
            f"{_line(user, needed)} in the org's file, then `pitstop apply -f org.toml`")  # fmt: skip


def admins(org: Org, name: str) -> str:
    """Who can change the rules, in words."""
    named = sorted(user for user, role in (org.roles or {}).items() if role == "admin" and user != EVERYBODY)
    if not named:
        return f"Who runs the system (an admin of {name})"
    listed = ", ".join(named[:3]) + (" or another" if len(named) > 3 else "")
    return f"An admin of {name} ({listed})"


def _line(user: str, role: Role) -> str:
    return f'`{user} = "{role}"` under [roles]' if user else "name an actor"
