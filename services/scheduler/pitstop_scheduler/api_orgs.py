"""Limits of an org: shown with what is in use, and set."""

from __future__ import annotations

import time
import uuid

import msgspec
from msgspec import UNSET
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api_orgs import OrgLimits, OrgView
from pitstop_common.faults import pointer
from pitstop_common.pull import rfc3339
from pitstop_common.ssh_policy import faults
from pitstop_scheduler.calls import Caller, Teller, Wrong, checked
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading


class Orgs:
    """Verbs about the caller's org."""

    def __init__(self, teller: Teller, reading: Reading, policy: Policy) -> None:
        self._teller, self._reading, self._policy = teller, reading, policy

    async def show(self, caller: Caller, _: MicroRequest) -> OrgView:
        """As the log has it."""
        await self._reading.all_fresh()  # orgs of all partitions share the pools
        return self._view(caller)

    async def apply(self, caller: Caller, asked: MicroRequest) -> OrgView:
        """Set all limits at once. Raises Wrong, Unavailable."""
        limits = checked(asked, OrgLimits)
        if wrong := faults(limits.ssh):
            named = tuple(m.Fault(pointer=pointer(("ssh", *path)), message=text) for path, text in wrong)
            raise Wrong("; ".join(f"`{one.pointer.lstrip('/')}` {one.message}" for one in named), named)
        fact = m.OrgConfigured(
            id=f"configured.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=subjects.NOBODY,
            slots=None if limits.slots is UNSET else limits.slots, weight=limits.weight, projects=limits.projects,
            pressure=limits.pressure, max_duration=limits.max_duration, longest_session=limits.longest_session,
            roles=limits.roles, rules=limits.rules, ssh=limits.ssh, by=caller.actor,
        )  # fmt: skip
        await self._teller.tell(fact)
        return self._view(caller)

    def _view(self, caller: Caller) -> OrgView:
        role = self._policy.role(caller.org, caller.actor)
        return msgspec.structs.replace(self._reading.org(caller.org), role=role)
