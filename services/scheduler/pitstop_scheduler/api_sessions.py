"""Keeping a session."""

from __future__ import annotations

import time
import uuid

from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common.api import Extended, ExtendRequest, JobStatusView, RunStatusView
from pitstop_common.errors import NotFound
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import Caller, Teller, Wrong, checked, text_of
from pitstop_scheduler.deadlines import has_session
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.model import Job
from pitstop_scheduler.reading import Reading


class Sessions:
    """Verbs about sessions."""

    def __init__(self, logs: Logs, teller: Teller, reading: Reading) -> None:
        self._logs, self._teller, self._reading = logs, teller, reading

    async def extend(self, caller: Caller, asked: MicroRequest) -> Extended:
        """Raises NotFound; Wrong when the job has no session now; Unavailable."""
        wanted = checked(asked, ExtendRequest)
        status = await self._reading.status(caller.org, text_of(asked, "run"))
        job = self._session(caller.org, status, wanted.job or (wanted.run if "-" in wanted.run else ""))
        fact = m.RunExtend(
            id=f"extend.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=status.run.run, job=job.id,
            project=status.run.project, request=status.run.request, seconds=wanted.seconds, by=caller.actor,
        )  # fmt: skip
        await self._teller.tell(fact, status.run.trace)
        return self._answer(caller.org, job.id, wanted.seconds)

    def _session(self, org: str, status: RunStatusView, wanted: str) -> Job:
        entries = [entry for entry in status.jobs if not wanted or wanted in {entry.job.job, entry.job.key}]
        if not entries:
            raise NotFound(f"run {status.run.run} has no job {wanted}")
        living = map(self._logs.state(org).job, (entry.job.job for entry in entries))
        found = [job for job in living if job and has_session(job)]
        if len(found) > 1:
            raise Wrong(f"{len(found)} jobs of the run have a session; name one: {', '.join(job.id for job in found)}")
        if not found:
            raise Wrong(_why_not(entries))
        return found[0]

    def _answer(self, org: str, id: str, seconds: float) -> Extended:
        state = self._logs.state(org)
        job = state.job(id)
        run = state.run(job.run) if job else None
        if job is None or run is None or not has_session(job):
            raise Wrong(f"the session of {id} ended meanwhile")
        longest = state.org(run.org).longest_session
        until = max(job.keep_until, job.deadline)
        start = job.first_login or job.paused
        capped = start + longest <= until < state.now + seconds if start else seconds > longest
        return Extended(job=id, until=rfc3339(until), capped=capped)


def _why_not(entries: list[JobStatusView]) -> str:
    if len(entries) > 1:
        return "no job of the run has a session now"
    job = entries[0].job
    if job.status == "finished":
        return f"job {job.job} has ended ({job.result}): there is no session to keep"
    if not entries[0].allowed:
        return f"job {job.job} offers no session: its run did not ask for one"
    return f"job {job.job} has no session now: it is {job.status}, and nobody is inside"
