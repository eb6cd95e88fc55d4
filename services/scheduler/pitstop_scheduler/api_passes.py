"""Tokens and logins of people."""

from __future__ import annotations

from nats.micro.request import Request as MicroRequest

from pitstop_common.api import Done, Nothing
from pitstop_common.errors import Denied
from pitstop_common.passes import LoginReply, LoginRequest, PassList, PassView, TokenMade, TokenRequest, TokenRevoke
from pitstop_common.permissions import RESERVED
from pitstop_common.pull import rfc3339
from pitstop_common.roles import at_least
from pitstop_scheduler.calls import Caller, Wrong, checked
from pitstop_scheduler.passes import Pass, Passes
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading


class Tokens:
    """Verbs about passes. `open`: does this deployment take logins."""

    def __init__(self, passes: Passes, policy: Policy, reading: Reading, *, open: bool) -> None:
        self._passes, self._policy, self._reading, self._open = passes, policy, reading, open

    async def create(self, caller: Caller, asked: MicroRequest) -> TokenMade:
        """Raises Denied, Wrong, NotFound, Unavailable."""
        wanted = checked(asked, TokenRequest)
        if not (self._open or wanted.for_ssh):
            raise Denied("this deployment takes no logins: set PITSTOP_CALLOUT_KEY for the scheduler, and the server's "
                         "auth_callout (deploy/nats)")  # fmt: skip
        user = wanted.user or caller.actor
        if user in RESERVED:
            raise Wrong(f"{user!r} is the name of a machine's credential, and of no person")
        self._policy.need(caller, "token-create", owner=user)
        if self._policy.of_deployment(user):  # else an admin of any org could make himself one of all
            self._policy.need_deployment(caller, "token-create", f"what is {user}'s")
        now = await self._passes.now()
        if wanted.for_ssh:
            return await self._for_ssh(caller, wanted, user, now)
        text = await self._passes.create(
            caller.org, user, ttl=wanted.ttl, lasts=wanted.lasts, role=wanted.role, by=caller.actor, now=now
        )
        id = text.split(".")[2]
        return TokenMade(id=id, token=text, user=user, expires=rfc3339(now + wanted.ttl), role=wanted.role)

    async def _for_ssh(self, caller: Caller, wanted: TokenRequest, user: str, now: float) -> TokenMade:
        project = (await self._reading.whose(caller.org, wanted.job))[0] if wanted.job else ""
        if wanted.job:  # a job of this org, that is not over
            await self._reading.job(caller.org, wanted.job)
            self._policy.need(caller, "token-create", project, owner=user)
        text = await self._passes.create_ssh(caller.org, user, ttl=wanted.ttl, job=wanted.job, by=caller.actor, now=now)
        return TokenMade(id=text.partition(".")[0], token=text, user=user, expires=rfc3339(now + wanted.ttl),
                         role=self._policy.role(caller.org, user, project), job=wanted.job)  # fmt: skip

    async def list(self, caller: Caller, asked: MicroRequest) -> PassList:
        """The caller's own; an admin's answer holds everybody's."""
        checked(asked, Nothing)
        everybody = at_least(self._policy.role(caller.org, caller.actor), "admin")
        found = await self._passes.list(caller.org, await self._passes.now())
        return PassList(passes=tuple(_view(one) for one in found if everybody or one.user == caller.actor))

    async def revoke(self, caller: Caller, asked: MicroRequest) -> Done:
        """Raises NotFound, Denied, Unavailable."""
        found = await self._passes.get(caller.org, checked(asked, TokenRevoke).id)
        self._policy.need(caller, "token-revoke", owner=found.user)
        await self._passes.revoke(found.id)
        return Done(ok=True)

    async def login(self, caller: Caller, asked: MicroRequest) -> LoginReply:
        """A login for a token, once. Raises Denied, Unavailable."""
        wanted = checked(asked, LoginRequest)
        org, user, id, secret = (*wanted.token.split("."), "", "", "", "")[:4]
        if (org, user) != (caller.org, caller.actor):
            raise Denied("this token is another's")
        made = await self._passes.exchange(id, secret, wanted.hash, await self._passes.now())
        return LoginReply(id=made.id, org=made.org, user=made.user, role=made.role, expires=rfc3339(made.expires))


def _view(one: Pass) -> PassView:
    return PassView(id=one.id, kind=one.kind, user=one.user, role=one.role, by=one.by, created=rfc3339(one.created),
                    expires=rfc3339(one.expires), job=one.job)  # fmt: skip
