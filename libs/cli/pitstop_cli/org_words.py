"""Limits of an org in words, and the difference that a file makes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from pitstop_cli.console import plain
from pitstop_cli.words import span
from pitstop_common.api_orgs import OrgLimits, OrgView
from pitstop_common.api_pools import PoolLimits, PoolView
from pitstop_common.roles import SERVICES, ProjectRules, Role
from pitstop_common.ssh_policy import OrgSsh, Revoked

_SERVICES = tuple(f".{service}" for service in SERVICES)


class Difference(msgspec.Struct, frozen=True):
    """A limit or a rule that changes. None: the default; of slots that of the deployment, where 0 is no limit."""

    key: str
    old: int | float | str | None
    new: int | float | str | None


def differences(view: OrgView, wanted: OrgLimits) -> list[Difference]:
    """What would change."""
    found = [
        Difference("slots", view.own_slots, None if wanted.slots is UNSET else wanted.slots),
        Difference("weight", view.weight, wanted.weight),
        Difference("pressure", view.pressure, wanted.pressure),
        Difference("max_duration", view.max_duration, wanted.max_duration),
        Difference("longest_session", view.longest_session, wanted.longest_session),
    ]
    for name in sorted({*view.projects, *wanted.projects}):
        found.append(Difference(f"projects.{name}.slots", view.projects.get(name), wanted.projects.get(name)))
    found += _roles("roles", view.roles, wanted.roles)
    found += _ssh(view.ssh, wanted.ssh)
    for name in sorted({*view.rules, *wanted.rules}):
        old, new = view.rules.get(name, ProjectRules()), wanted.rules.get(name, ProjectRules())
        found.append(Difference(f"projects.{name}.ssh", _yes(old.ssh), _yes(new.ssh)))
        found.append(Difference(f"projects.{name}.ssh_role", old.ssh_role, new.ssh_role))
        for service in ("recording", *SERVICES):
            given = (_yes(getattr(rules, service)) for rules in (old, new))
            found.append(Difference(f"projects.{name}.{service}", *given))
        found += _roles(f"projects.{name}.roles", old.roles, new.roles)
    return [one for one in found if one.old != one.new]


def pool_differences(views: Iterable[PoolView], wanted: Mapping[str, PoolLimits]) -> list[Difference]:
    """What would change of the pools that are named; a pool that nobody knows has the default."""
    own = {view.pool: view.own_slots for view in views}
    found = [
        Difference(f"pools.{name}.slots", own.get(name), None if limits.slots is UNSET else limits.slots)
        for name, limits in sorted(wanted.items())
    ]
    return [one for one in found if one.old != one.new]


def _roles(table: str, old: Mapping[str, Role] | None, new: Mapping[str, Role] | None) -> Iterator[Difference]:
    if old is None or new is None:
        yield Difference(table, None if old is None else "a table", None if new is None else "a table")
    for user in sorted({*(old or {}), *(new or {})}):
        yield Difference(f"{table}.{user}", (old or {}).get(user), (new or {}).get(user))


def _ssh(old: OrgSsh, new: OrgSsh) -> Iterator[Difference]:
    for key in ("keys_url", "keys_token"):
        yield Difference(f"ssh.{key}", getattr(old, key) or None, getattr(new, key) or None)
    for key, olds, news in (
        ("user_ca", old.user_ca, new.user_ca),
        *((f"revoked.{of}", getattr(old.revoked, of), getattr(new.revoked, of)) for of in Revoked.__struct_fields__),
    ):
        for one in dict.fromkeys(map(str, [*olds, *news])):
            known = [one if one in map(str, listed) else None for listed in (olds, news)]
            yield Difference(f"ssh.{key}", *known)
    for name in sorted({*old.principals, *new.principals}):
        yield Difference(f"ssh.principals.{name}", old.principals.get(name), new.principals.get(name))


def _yes(value: bool) -> str:
    return "true" if value else "false"


def difference_lines(found: list[Difference]) -> Iterator[str]:
    """`  slots  4 -> 2`, in columns."""
    width = max((len(one.key) for one in found), default=0)
    for one in found:
        yield f"  {one.key:<{width}}  {_value(one.key, one.old)} -> {_value(one.key, one.new)}"


def org_lines(view: OrgView) -> Iterator[str]:
    """The page of `pitstop org show`."""
    default = "" if view.own_slots is not None else "  (the default)"
    yield f"org {view.org}" + ("" if view.configured else "  (nothing was set for it)")
    yield f"  slots            {_used(view.used, view.slots)}, {view.debug} of them for sessions{default}"
    yield f"  waiting          {view.waiting} job{'s' * (view.waiting != 1)}"
    yield f"  weight           {view.weight}"
    yield f"  pressure         idle at most {_value('pressure', view.pressure)} while others wait"
    yield f"  max duration     {_value('max_duration', view.max_duration)} from the first login, unless a run says"
    yield f"  longest session  {_value('longest_session', view.longest_session)}, also as a run says or when extended"
    for name in sorted({*view.projects, *view.used_by_project}):
        used, limit = view.used_by_project.get(name, 0), view.projects.get(name)
        yield f"  project {plain(name)}: " + (_used(used, limit) if limit is not None else f"{used} in use")
    roles = _members(view.roles) if view.roles is not None else "no table: everybody has write"
    yield f"  roles            {roles}"
    yield f"  your role        {view.role}"
    yield from _ssh_lines(view.ssh)
    for name, rules in sorted(view.rules.items()):
        yield f"  project {plain(name)}: " + "; ".join(_rules(rules))
    yield from pool_lines(view.pools)


def _ssh_lines(ssh: OrgSsh) -> Iterator[str]:
    if ssh.keys_url:
        yield f"  keys of users    {plain(ssh.keys_url)}" + (f", with {ssh.keys_token}" if ssh.keys_token else "")
    for line in ssh.user_ca:
        yield f"  trusted CA       {plain(line)}"
    for principal, user in sorted(ssh.principals.items()):
        yield f"  principal        {plain(principal)} is {plain(user)}"
    for what in Revoked.__struct_fields__:
        if listed := getattr(ssh.revoked, what):
            yield f"  revoked {what:<8} {', '.join(plain(str(one)) for one in listed)}"


def pool_lines(views: Iterable[PoolView]) -> Iterator[str]:
    """`  pool default: 3 of 8 in use by all orgs; 20 places on its hosts`."""
    for view in views:
        default = "" if view.own_slots is not None else "; its limit is the default"
        of = f"{view.used} of {view.slots}" if view.slots else f"{view.used}"
        limit = "" if view.slots else ", no limit"
        yield (f"  pool {view.pool}: {of} in use by all orgs{limit}; {view.places} place{'s' * (view.places != 1)} "
               f"on its hosts{default}")  # fmt: skip


def _rules(rules: ProjectRules) -> Iterator[str]:
    yield f"SSH for the role {rules.ssh_role}" if rules.ssh else "SSH is disabled"
    if off := [service for service in SERVICES if not getattr(rules, service)]:
        yield f"without {', '.join(off)}"
    if rules.recording:
        yield "terminals are recorded"
    if rules.roles:
        yield f"roles: {_members(rules.roles)}"


def _members(roles: Mapping[str, Role]) -> str:
    return ", ".join(f"{user} {role}" for user, role in sorted(roles.items())) or "nobody has any"


def _used(used: int, limit: int) -> str:
    return f"{used} of {limit} in use" if limit else f"{used} in use, no limit"


def _value(key: str, value: Any) -> str:
    if key in {"pressure", "max_duration", "longest_session"}:
        return span(value)
    if key == "weight" or key.endswith((".ssh", ".ssh_role", ".recording", *_SERVICES)):
        return str(value)
    if key.startswith("ssh."):
        return plain(value) if value else "none"
    if key.startswith("roles") or ".roles" in key:
        return value or ("no table: everybody has write" if key == "roles" else "not named")
    return "the default" if value is None else str(value) if value else "no limit"
