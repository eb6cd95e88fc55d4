"""`svc.who`: whose a key is, in every org, and which jobs they may enter now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pitstop_common import messages as m
from pitstop_common.certificates import Bounds, Certificate, judge, parse
from pitstop_common.credentials import Entered, by_certificate
from pitstop_common.limits import TOKEN
from pitstop_common.userauth import Malformed
from pitstop_scheduler.admitting import Admitting
from pitstop_scheduler.forced import guests
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.model import Job
from pitstop_scheduler.people import People
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.views import job_view

MAX_OPEN_JOBS: Final = 50
"""Listed for one person."""
_ENTERED: Final = frozenset({"starting", "running", "paused"})


class Who:
    """Answers from the fold and the registered keys."""

    def __init__(self, logs: Logs, people: People, reading: Reading, admitting: Admitting) -> None:
        self._logs, self._people, self._reading, self._admitting = logs, people, reading, admitting

    async def whose(self, request: m.WhoRequest) -> m.WhoReply:
        """Raises Unavailable."""
        await self._reading.current()
        certificate = _certificate(request)
        now = await self._people.now() if certificate is not None else 0.0
        people = await self._people.owners_of(request.fingerprint)
        if certificate is not None:
            people = list(dict.fromkeys([*people, *self._certified(certificate, request, now)]))
        orgs = {person.org for person in people}
        found: list[m.OpenJob] = []
        for job in sorted(self._open(orgs), key=lambda job: (job.queued, job.id)):
            if len(found) == MAX_OPEN_JOBS:
                break
            access = await self._admitting.as_known(m.AccessRequest(job=job.id))
            by_key = any(key.fingerprint == request.fingerprint for key in access.allowed)
            if by_key or (
                certificate is not None
                and isinstance(by_certificate(certificate, access, now, request.client, request.signature), Entered)
            ):
                found += filter(None, [await self._described(job)])
        return m.WhoReply(people=tuple(people), jobs=tuple(found))

    def _certified(self, certificate: Certificate, request: m.WhoRequest, now: float) -> Iterator[m.Person]:
        """Who somebody with a certificate is, in each org that trusts it."""
        for log in self._logs:
            for name, org in log.state.orgs.items():
                if not org.ssh.user_ca:
                    continue
                if isinstance(judge(certificate, org.ssh, now, request.client, request.signature), Bounds):
                    users = (org.ssh.principals.get(one, one) for one in certificate.principals)
                    yield from (m.Person(org=name, user=user) for user in users if TOKEN.match(user))

    def _open(self, orgs: set[str]) -> list[Job]:
        living = (job for log in self._logs for job in log.state.living_jobs() if job.status in _ENTERED)
        open_ = (job for job in living if job.offers or (job.hold is not None and job.hold.used) or guests(job.forced))
        return [job for job in open_ if self._org_of(job) in orgs]

    def _org_of(self, job: Job) -> str:
        having = self._logs.having(job.run)
        return having.state.runs[job.run].org if having is not None else ""

    async def _described(self, job: Job) -> m.OpenJob | None:
        having = self._logs.having(job.run)
        if having is None:
            return None
        run = having.state.runs[job.run]
        view = job_view(job, run, having.state.head)
        report, _ = await self._reading.report(view)
        command = report.ssh.command if report is not None and report.ssh is not None else ""
        return m.OpenJob(org=run.org, project=run.project, job=job.id, key=job.key, status=job.status,
                         sessions=len(job.sessions), command=command)  # fmt: skip


def _certificate(request: m.WhoRequest) -> Certificate | None:
    try:
        return parse(request.certificate) if request.certificate else None
    except Malformed:
        return None
