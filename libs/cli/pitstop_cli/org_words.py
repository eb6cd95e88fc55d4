"""Limits of an org in words, and the difference that a file makes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from pitstop_cli.console import plain
from pitstop_cli.words import span
from pitstop_common.api import OrgLimits, OrgView


class Difference(msgspec.Struct, frozen=True):
    """A limit that changes. Slots None: the default of the deployment, 0: no limit."""

    key: str
    old: int | float | None
    new: int | float | None


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
    return [one for one in found if one.old != one.new]


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


def _used(used: int, limit: int) -> str:
    return f"{used} of {limit} in use" if limit else f"{used} in use, no limit"


def _value(key: str, value: Any) -> str:
    if key in {"pressure", "max_duration", "longest_session"}:
        return span(value)
    if key == "weight":
        return str(value)
    return "the default" if value is None else str(value) if value else "no limit"
