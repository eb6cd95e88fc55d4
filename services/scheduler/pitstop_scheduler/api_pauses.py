"""A job that runs is to wait for whoever asks."""

from __future__ import annotations

import time
import uuid

from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common.api import JobStatusView, RunStatusView
from pitstop_common.api_pauses import PauseRequest, Pausing
from pitstop_common.errors import NotFound
from pitstop_common.pull import rfc3339
from pitstop_scheduler.api_holds import NobodyCanEnter
from pitstop_scheduler.calls import Caller, Teller, Wrong, checked, text_of
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.forced import Forced
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.rules.pauses import PAUSABLE

_TRIES = 3
"""Of those who ask at the same moment one is heard, and the others ask again."""


class Pauses:
    """The verb `pause`."""

    def __init__(self, logs: Logs, teller: Teller, people: People, reading: Reading, policy: Policy,
                 contexts: Contexts) -> None:  # fmt: skip
        self._logs, self._teller, self._people, self._reading = logs, teller, people, reading
        self._policy, self._contexts = policy, contexts

    async def ask(self, caller: Caller, asked: MicroRequest) -> Pausing:
        """Raises NotFound; Wrong when the job is not running; NobodyCanEnter; Unavailable."""
        wanted = checked(asked, PauseRequest)
        status = await self._reading.status(caller.org, text_of(asked, "run"))
        entry = self._running(status, wanted.job or (wanted.run if "-" in wanted.run else ""), off=wanted.off)
        if not wanted.off:
            await self._admit(caller, status.run.run, entry.job.job)
        await self._tell(caller, status.run, entry.job.job, off=wanted.off)
        view = await self._reading.job(caller.org, entry.job.job)
        if view.status == "finished":
            raise Wrong(_why_not(view, off=wanted.off))
        return Pausing(job=view.job, run=view.run, pausing=view.pausing, by=view.pausing_by, step=view.pausing_step,
                       steps=entry.steps)  # fmt: skip

    async def _tell(self, caller: Caller, run: m.RunView, job: str, *, off: bool) -> None:
        for _ in range(_TRIES):
            living = self._logs.state(caller.org).job(job)
            now = (living.forced if living else None) or Forced()
            if living is None or living.status not in PAUSABLE or _is_so(now, caller.actor, off=off):
                return
            fact = m.RunPause(
                id=f"pause.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=run.run, job=job,
                project=run.project, request=run.request, attempt=living.attempt,
                revision=now.revision, by=caller.actor, off=off,
            )  # fmt: skip
            await self._teller.tell(fact, run.trace)

    def _running(self, status: RunStatusView, wanted: str, *, off: bool) -> JobStatusView:
        entries = [entry for entry in status.jobs if not wanted or wanted in {entry.job.job, entry.job.key}]
        if not entries:
            raise NotFound(f"run {status.run.run} has no job {wanted}")
        found = [entry for entry in entries if entry.job.status in PAUSABLE]
        if len(found) > 1:
            raise Wrong(f"{len(found)} jobs of the run are running; name one: "
                        f"{', '.join(entry.job.job for entry in found)}")  # fmt: skip
        if not found:
            raise Wrong(_why_not(entries[0].job, off=off) if len(entries) == 1 else "no job of the run is running now")
        return found[0]

    async def _admit(self, caller: Caller, run: str, job: str) -> None:
        """Nobody has a job wait whom it would not let in."""
        spec = await self._reading.spec(caller.org, run)
        closed = await self._contexts.closed(spec.org, spec.job(job).secrets)
        barred = self._policy.barred(spec.org, spec.project, caller.actor) or closed(caller.actor)
        if barred is not None:
            raise NobodyCanEnter(barred.code, barred.text)
        own = spec.session.keys if spec.actor == caller.actor else ()
        ca = self._policy.ssh(caller.org).user_ca
        if not (own or ca or await self._people.may_prove(caller.org, caller.actor)):
            raise NobodyCanEnter(
                "ssh_no_key",
                f"you could not enter: no SSH key is registered for {caller.actor} in org {caller.org}. Register one: "
                "`pitstop keys add ~/.ssh/id_ed25519.pub`",
            )


def _is_so(now: Forced, user: str, *, off: bool) -> bool:
    return not now.armed if off else now.armed and user in now.users


def _why_not(job: m.JobView, *, off: bool) -> str:
    if job.status == "finished":
        return f"job {job.job} has ended ({job.result}); rerun it with a pause: `pitstop rerun {job.job} --ssh-at-end`"
    if job.status == "stopping":
        return f"job {job.job} is being stopped ({job.reason})"
    if job.status == "paused":
        more = f"; `ssh {job.job}@RELAY continue` ends the pause" if off else ""
        return f"job {job.job} is paused already: `pitstop ssh {job.job}`{more}"
    return (f"job {job.job} waits in the queue: only a step in progress can be held. Pause when it runs, or start it "
            "with --ssh-after-step N (or --ssh-before-step, --ssh-on-failure, --ssh)")  # fmt: skip
