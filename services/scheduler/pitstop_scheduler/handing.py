"""Hands the secrets of a job to the host that runs it: `svc.secrets`.

Whoever asks says who it is, and may lie: all hosts have the same NATS user. So it matters only what the log says. The
values are sealed to the key that came with the first claim of the attempt, and only while the log has that host and
process for the claimant. Another holder of the hosts' credential gets a sealed text that it cannot open; what it can do
is claim a job before another host does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common.errors import NotFound, PitstopError, Unavailable
from pitstop_common.sealing import BadSeal, for_attempt, seal
from pitstop_common.spec import RunSpec
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.keyring import NoKey
from pitstop_scheduler.log import Log
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.model import Job
from pitstop_scheduler.reading import Reading

log = logging.getLogger(__name__)

_CLAIMED_WITHIN: Final = 0.5
"""So long the decision on a claim is waited for, seconds. Then the host asks again."""
_OVER: Final = ("stopping", "finished")


class Kept(PitstopError):
    """The secrets are not given: the service error's code, and a closed set of reasons for the metric."""

    def __init__(self, number: str, reason: str, text: str) -> None:
        super().__init__(text)
        self.number, self.reason = number, reason


class Handing:
    """Answers hosts."""

    def __init__(self, logs: Logs, reading: Reading, contexts: Contexts, metrics: Metrics) -> None:
        self._logs, self._reading, self._contexts, self._metrics = logs, reading, contexts, metrics

    async def answer(self, request: MicroRequest) -> None:
        """The endpoint (of `calls.to_inboxes`). Nothing of a value is in an error or a log."""
        reason = "given"
        try:
            asked = msgspec.json.decode(request.data, type=m.SecretsRequest)
            await request.respond(m.encode(await self.give(asked)))
        except Kept as error:
            reason = error.reason
            await request.respond_error(error.number, str(error))
        except msgspec.MsgspecError:
            reason = "invalid"
            await request.respond_error("400", "not a request for secrets")
        except Unavailable as error:
            reason = "unavailable"
            await request.respond_error("503", str(error))
        except Exception as error:
            reason = "failed"
            log.exception("secrets could not be given")
            await request.respond_error("503", f"the scheduler failed: {type(error).__name__}")
        self._metrics.secrets.labels(reason).inc()

    async def give(self, asked: m.SecretsRequest) -> m.SecretsReply:
        """The secrets of a job, sealed. Raises Kept, Unavailable."""
        await self._reading.current(asked.job)
        having = self._logs.having(asked.job)
        if having is None:
            raise Kept("404", "unknown", f"there is no job {asked.job} now")
        job = await _claimed(having, asked)
        run = having.state.run(job.run)
        if run is None:
            raise Kept("404", "unknown", f"the run of job {asked.job} is not known any more")
        try:
            spec = await self._reading.spec(run.org, run.id)
        except NotFound as error:
            raise Kept("404", "unknown", str(error)) from error
        names = spec.job(asked.job).secrets
        values = await self._values(spec, names)
        purpose = for_attempt(asked.job, asked.attempt, asked.host, asked.incarnation)
        try:
            sealed = seal(msgspec.json.encode(values), job.seal, purpose)
        except BadSeal as error:
            raise Kept("403", "no_key", str(error)) from error
        log.info("job %s of org %s: secrets of %s sealed to host %s", asked.job, run.org, ", ".join(names), asked.host)
        return m.SecretsReply(key=job.seal, sealed=sealed)

    async def _values(self, spec: RunSpec, names: tuple[str, ...]) -> dict[str, str]:
        why = await self._contexts.refusals(
            spec.org, names, actor=spec.actor, project=spec.project, vouched=spec.vouched
        )  # fmt: skip
        if why:
            raise Kept("403", "refused", "; ".join(why.values()))
        values: dict[str, str] = {}
        try:
            for name in names:
                values |= await self._contexts.values(spec.org, name)
        except NoKey as error:
            raise Kept("403", "no_key", str(error)) from error
        return values


async def _claimed(log_: Log, asked: m.SecretsRequest) -> Job:
    """The job, once the log has the asker for its claimant."""

    def is_claimant() -> bool:
        job = log_.state.job(asked.job)
        return job is None or job.status in _OVER or _claimant(job) == _of(asked)

    try:
        async with asyncio.timeout(_CLAIMED_WITHIN), log_.changed:
            await log_.changed.wait_for(is_claimant)
    except TimeoutError:
        text = f"the log does not have this process of {asked.host} for the claimant of {asked.job}"
        raise Kept("409", "not_claimant", text) from None
    job = log_.state.job(asked.job)
    if job is None:
        raise Kept("404", "unknown", f"there is no job {asked.job} now")
    if job.status in _OVER:
        raise Kept("410", "ended", f"the job {asked.job} has ended")
    return job


def _claimant(job: Job) -> tuple[int, str, str]:
    return job.attempt, job.host, job.incarnation


def _of(asked: m.SecretsRequest) -> tuple[int, str, str]:
    return asked.attempt, asked.host, asked.incarnation
