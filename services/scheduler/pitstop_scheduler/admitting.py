"""`svc.access`: who may enter a job, by whatever proof. Asked at each login, by the relay and again by the host."""

from __future__ import annotations

from pitstop_common import messages as m
from pitstop_common.errors import NotFound
from pitstop_common.spec import RunSpec
from pitstop_common.ssh_policy import OrgSsh, Trust
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.links import WAIT
from pitstop_scheduler.passes import SSH, Passes
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading, guests_of, named


class Admitting:
    """The same rules for every way in: whom the run names, the roles, the project, the job's contexts."""

    def __init__(self, reading: Reading, people: People, policy: Policy, contexts: Contexts, passes: Passes) -> None:
        self._reading, self._people, self._policy = reading, people, policy
        self._contexts, self._passes = contexts, passes

    async def access(self, request: m.AccessRequest) -> m.AccessReply:
        """Who may enter a job. Raises Unavailable."""
        await self._reading.current(request.job)
        return await self.as_known(request, wait=WAIT)

    async def as_known(self, request: m.AccessRequest, *, wait: float = 0) -> m.AccessReply:
        """The same, without a look whether anything is to be folded yet, and without waiting longer than so many
        seconds for sources of linked keys. Raises Unavailable."""
        token = await self._token(request.token)
        try:
            view = await self._reading.job(None, request.job)
            spec = await self._reading.spec(view.org, view.run)
        except NotFound:
            return m.AccessReply(found=False, job=request.job, token=token)
        offers = spec.job(view.job).pause.any or bool(guests_of(view))
        people = {one.user: one for one in await self._entrants(spec, view)}
        found = await self._reading.keys(spec, view, wait=wait)
        keys = found.keys
        allowed = [key for key in keys if not people[key.user].barrier]
        shut = next((people[key.user] for key in keys if key.fingerprint == request.fingerprint), None)
        owner = ""
        if request.fingerprint and all(key.fingerprint != request.fingerprint for key in allowed):
            owner = await self._people.owner_of(spec.org, request.fingerprint)
        policy = self._policy.ssh(spec.org)
        return m.AccessReply(
            found=True, job=view.job, attempt=view.attempt, org=view.org, run=view.run, project=view.project,
            request=spec.request, actor=spec.actor, status=view.status, host=view.host,
            incarnation=view.incarnation, offers=offers, allowed=tuple(allowed), owner=owner,
            barrier=shut.barrier if shut else "", barrier_text=shut.barrier_text if shut else "",
            services=self._policy.services(spec.org, spec.project), people=tuple(people.values()),
            recording=self._policy.recorded(spec.org, spec.project), trust=_trust(policy, set(people)), token=token,
            linked=found.trouble(await self._people.now()) if found.linked else "",
        )  # fmt: skip

    async def _entrants(self, spec: RunSpec, view: m.JobView) -> list[m.Entrant]:
        closed = await self._contexts.closed(spec.org, spec.job(view.job).secrets)
        found = []
        for user in dict.fromkeys(named(spec, view)):
            barred = self._policy.barred(spec.org, spec.project, user) or closed(user)
            found.append(m.Entrant(user=user, barrier=barred.code, barrier_text=barred.text) if barred
                         else m.Entrant(user=user))  # fmt: skip
        return found

    async def _token(self, id: str) -> m.KnownToken | None:
        held = await self._passes.find(id) if id else None
        if held is None or held.kind != SSH:
            return None
        over = held.expires <= await self._passes.now()
        return m.KnownToken(id=held.id, org=held.org, user=held.user, hash=held.hash, job=held.job, over=over)


def _trust(policy: OrgSsh, people: set[str]) -> Trust:
    """What bears on these people: an org may have thousands of principals. One that has a user's name and stands for
    another must not be left out."""
    if not policy.user_ca:
        return Trust()
    principals = {name: user for name, user in policy.principals.items() if user in people or name in people}
    return Trust(user_ca=policy.user_ca, principals=principals, revoked=policy.revoked)
