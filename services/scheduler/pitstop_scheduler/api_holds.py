"""Holds: set before a failure, so that it waits for a person."""

from __future__ import annotations

import secrets
import time
import uuid

from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api import Done
from pitstop_common.api_holds import HoldList, HoldRemoval, HoldRequest, HoldView
from pitstop_common.errors import NotFound, PitstopError
from pitstop_common.limits import MAX_HOLDS, MAX_HOLDS_KNOWN
from pitstop_common.permissions import PUBLISHER
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import Caller, Teller, Wrong, checked
from pitstop_scheduler.hold import Hold
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading


class NobodyCanEnter(PitstopError):
    """The hold's user could not enter the job: says who can change it, and how."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code  # type: ignore[misc]


class Holds:
    """Verbs about the holds of the caller's org."""

    def __init__(self, logs: Logs, teller: Teller, people: People, reading: Reading, policy: Policy) -> None:
        self._logs, self._teller, self._people, self._policy = logs, teller, people, policy
        self._reading = reading

    async def set(self, caller: Caller, asked: MicroRequest) -> HoldView:
        """Raises Denied, NobodyCanEnter, Wrong, Unavailable."""
        wanted = checked(asked, HoldRequest)
        self._policy.need(caller, "hold", wanted.project)
        user = wanted.user or ("" if caller.actor == PUBLISHER else caller.actor)
        await self._admit(caller.org, wanted.project, user)
        id = wanted.id or secrets.token_hex(4)
        fact = m.HoldSet(
            id=f"hold.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=subjects.NOBODY,
            project=wanted.project, hold=id, user=user, key=wanted.job, branch=wanted.branch, count=wanted.count,
            until=await self._reading.now() + wanted.seconds, by=caller.actor,
        )  # fmt: skip
        await self._teller.tell(fact)
        made = self._all(caller.org).get(id)
        if made is None:
            raise Wrong(
                f"org {caller.org} has {MAX_HOLDS} holds, or had {MAX_HOLDS_KNOWN} of late, and can have no more now: "
                "remove one (`pitstop hold rm ID`), or wait until some are over"
            )
        return view(made)

    async def list(self, caller: Caller, _: MicroRequest) -> HoldList:
        """Those that are not over."""
        state = self._logs.state(caller.org)
        holds = [hold for hold in self._all(caller.org).values() if hold.lives(state.now)]
        return HoldList(holds=tuple(view(one) for one in holds if self._policy.may_read(caller, one.project)))

    async def remove(self, caller: Caller, asked: MicroRequest) -> Done:
        """Raises NotFound, Denied, Unavailable. Who set it and whom it waits for may; others need to be admins."""
        id = checked(asked, HoldRemoval).hold
        hold = self._all(caller.org).get(id)
        if hold is None or not hold.left or not self._policy.may_read(caller, hold.project):
            raise NotFound(f"there is no hold {id!r} in org {caller.org}; `pitstop hold ls` shows those there are")
        owner = hold.by if caller.actor != hold.user else caller.actor
        self._policy.need(caller, "hold-rm", hold.project, owner)
        fact = m.HoldRemove(
            id=f"unhold.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=subjects.NOBODY,
            project=hold.project, hold=id, by=caller.actor,
        )  # fmt: skip
        await self._teller.tell(fact)
        return Done(ok=True)

    def _all(self, org: str) -> dict[str, Hold]:
        return self._logs.state(org).org(org).holds

    async def _admit(self, org: str, project: str, user: str) -> None:
        if not user:
            raise Wrong("`user` is missing: whom are the failures to wait for?")
        barred = self._policy.barred(org, project, user)
        if barred is not None:
            raise NobodyCanEnter(barred.code, barred.text)
        if not (self._policy.ssh(org).user_ca or await self._people.may_prove(org, user)):
            raise NobodyCanEnter(
                "ssh_no_key",
                f"{user} could not enter: no SSH key is registered for {user} in org {org}. Register one as {user}: "
                "`pitstop keys add ~/.ssh/id_ed25519.pub`",
            )


def view(hold: Hold) -> HoldView:
    """A hold, for readers."""
    return HoldView(hold=hold.id, project=hold.project, job=hold.key, branch=hold.branch, user=hold.user, by=hold.by,
                    left=hold.left, until=rfc3339(hold.until))  # fmt: skip
