"""Rules for what hosts say of themselves and of their jobs, and the janitor of lost ones. Pure."""

from __future__ import annotations

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.model import Job
from pitstop_scheduler.tick import Stored, Tick, end, of_claimant, report
from pitstop_scheduler.transitions import CLAIMED, READY, allowed


def claimed(tick: Tick, fact: m.JobClaimed, _: Stored) -> None:
    job = tick.draft.job(fact.job)
    mine = job is not None and job.attempt == fact.attempt and job.host in {"", fact.host}
    if job is not None and mine and fact.incarnation < job.incarnation:
        return  # said before the process that has the job now was started
    if job is None or not mine or not allowed(job.status, CLAIMED):
        tick.emit(c.Stray(fact.org, fact.run, fact.job, fact.attempt, fact.host, fact.id))
        return
    if (job.host, job.incarnation) != (fact.host, fact.incarnation):
        tick.emit(c.Claimed(job.id, job.attempt, fact.host, fact.incarnation))


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
        _finish(tick, job, "error", fact.reason or "sandbox_failed", fact.id)


def finished(tick: Tick, fact: m.JobFinished, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None:
        report(tick, job, fact, fact.report, fact.message)
        _finish(tick, job, fact.result, fact.reason, fact.id)


def _finish(tick: Tick, job: Job, result: m.Result, reason: str, cause: str) -> None:
    if job.status == "stopping":  # the log has said already what it ends as
        result, reason = job.result or result, job.reason or reason
    end(tick, job, result, reason, cause)


def lost(tick: Tick, fact: m.SandboxLost, _: Stored) -> None:
    host = tick.draft.host(fact.host)
    if not fact.job and host is not None and host.incarnation == fact.incarnation and host.capacity:
        tick.emit(c.HostLost(host.id, host.incarnation))
    for job in tuple(tick.draft.living_jobs()):
        claimant = (job.host, job.incarnation) == (fact.host, fact.incarnation)
        unclaimed = fact.job == job.id and not job.host and job.attempt == fact.attempt
        if (claimant and fact.job in {"", job.id}) or unclaimed:
            _finish(tick, job, "error", fact.reason, fact.id)


def room(tick: Tick, fact: m.SandboxRoom, _: Stored) -> None:
    host = tick.draft.host(fact.host)
    if host is not None and (fact.incarnation, fact.serial) <= (host.incarnation, host.serial):
        return
    tick.emit(c.Room(fact.host, fact.incarnation, fact.pool, fact.capacity, fact.serial))


def step_finished(tick: Tick, fact: m.StepFinished, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None:
        report(tick, job, fact, fact.report, "")
