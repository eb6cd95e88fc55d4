"""Rules for what hosts say of themselves and of their jobs, and the janitor of lost ones. Pure."""

from __future__ import annotations

from typing import Final

from pitstop_common import messages as m
from pitstop_common.limits import MAX_SEAL_CHARS, RETRIES
from pitstop_scheduler import changes as c
from pitstop_scheduler.model import Job
from pitstop_scheduler.tick import Stored, Tick, end, of_claimant, rearm, report
from pitstop_scheduler.transitions import CLAIMED, READY, RETRIED, allowed

OF_THE_HOST: Final = "host_"
"""Reasons of a host that could not go on with a job begin so."""
OF_THE_JOB: Final = "image_"
"""Reasons for which no host could make the sandbox."""


def claimed(tick: Tick, fact: m.JobClaimed, _: Stored) -> None:
    job = tick.draft.job(fact.job)
    mine = job is not None and job.attempt == fact.attempt and job.host in {"", fact.host}
    if job is not None and mine and fact.incarnation < job.incarnation:
        return  # said before the process that has the job now was started
    if job is None or not mine or not allowed(job.status, CLAIMED):
        tick.emit(c.Stray(fact.org, fact.run, fact.job, fact.attempt, fact.host, fact.id))
        return
    if (job.host, job.incarnation) != (fact.host, fact.incarnation):
        # Its secrets are sealed to this key: a later claim in the same host's name must not bring another.
        key = job.seal if job.host else fact.key[:MAX_SEAL_CHARS]
        tick.emit(c.Claimed(job.id, job.attempt, fact.host, fact.incarnation, key))


def ready(tick: Tick, fact: m.SandboxReady, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None and allowed(job.status, READY):
        tick.emit(c.Ready(job.id, fact.id))
        if fact.ssh is not None:  # people may enter before the first step has anything to report
            report(tick, job, fact, m.JobReport(ssh=fact.ssh), "")


def failed(tick: Tick, fact: m.SandboxFailed, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None:
        report(tick, job, fact, None, fact.message)
        reason = fact.reason or "sandbox_failed"
        _finish(tick, job, "error", reason, fact.id, of_host=not reason.startswith(OF_THE_JOB))


def finished(tick: Tick, fact: m.JobFinished, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None:
        report(tick, job, fact, fact.report, fact.message)
        of_host = fact.result == "error" and fact.reason.startswith(OF_THE_HOST)
        _finish(tick, job, fact.result, fact.reason, fact.id, of_host=of_host)


def _finish(tick: Tick, job: Job, result: m.Result, reason: str, cause: str, *, of_host: bool) -> None:
    if job.status == "stopping":  # the log has said already what it ends as
        result, reason = job.result or result, job.reason or reason
    elif of_host and _may_be_retried(tick, job):
        tick.emit(c.Retried(job.id, job.attempt, reason, cause))
        rearm(tick, job.id)
        return
    end(tick, job, result, reason, cause)


def _may_be_retried(tick: Tick, job: Job) -> bool:
    """Never after a person has been inside: what they did there would be done again, without them."""
    run = tick.draft.run(job.run)
    untouched = not job.first_login and not job.seen
    return run is not None and run.retry and untouched and len(job.earlier) < RETRIES and allowed(job.status, RETRIED)


def lost(tick: Tick, fact: m.SandboxLost, _: Stored) -> None:
    host = tick.draft.host(fact.host)
    if not fact.job and host is not None and host.incarnation == fact.incarnation and not host.lost:
        tick.emit(c.HostLost(host.id, host.incarnation))
    for job in tuple(tick.draft.living_jobs()):
        named = (fact.job, fact.attempt) == (job.id, job.attempt)
        claimant = (job.host, job.incarnation) == (fact.host, fact.incarnation)
        unclaimed = named and not job.host and job.status != "queued"
        if (claimant and (named or not fact.job)) or unclaimed:
            _finish(tick, job, "error", fact.reason, fact.id, of_host=True)


def room(tick: Tick, fact: m.SandboxRoom, _: Stored) -> None:
    host = tick.draft.host(fact.host)
    if host is not None and (fact.incarnation, fact.serial) <= (host.incarnation, host.serial):
        return
    tick.emit(
        c.Room(fact.host, fact.incarnation, fact.pool, fact.capacity, fact.serial, fact.labels, fact.drain_serial)
    )
    known = tick.draft.host(fact.host)
    assert known is not None
    if fact.drain_serial < known.drain_serial:  # it was away, or has lost its folder
        tick.emit(c.Drained(known.id, known.drained, known.drain_serial, known.drained_by))
    elif fact.drain_serial > known.drain_serial:  # another partition has told it, or the log was begun anew
        tick.emit(c.Drained(known.id, fact.drained, fact.drain_serial, known.drained_by, tell=False))


def drain(tick: Tick, fact: m.HostDrain, _: Stored) -> None:
    """One whose serial is not the next says what is known, or what nobody who knew the last word has asked."""
    host = tick.draft.host(fact.host)
    if host is not None and fact.serial > host.drain_serial:
        tick.emit(c.Drained(host.id, fact.drain, fact.serial, fact.by))


def step_finished(tick: Tick, fact: m.StepFinished, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None:
        report(tick, job, fact, fact.report, "")
