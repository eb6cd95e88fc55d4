"""Rules for pauses, the people inside, and deadlines. Pure."""

from __future__ import annotations

from typing import Final

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.deadlines import result_of_expiry
from pitstop_scheduler.rules import holds, pauses
from pitstop_scheduler.tick import Stored, Tick, of_claimant, rearm, report
from pitstop_scheduler.transitions import PAUSED, RESUMED, STOPPED, allowed

EARLY: Final = 0.5
"""Seconds before its deadline from which a fired deadline is taken as on time (clocks of two servers)."""


def paused(tick: Tick, fact: m.JobPaused, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is None:
        return
    report(tick, job, fact, fact.report, "")
    if allowed(job.status, PAUSED):
        tick.emit(c.Paused(job.id, fact.reason, fact.so_far, fact.id))
        holds.failed(tick, job, fact)
        pauses.paused(tick, job, fact)
        rearm(tick, job.id)


def resumed(tick: Tick, fact: m.JobResumed, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is None:
        return
    report(tick, job, fact, fact.report, "")
    if allowed(job.status, RESUMED):
        tick.emit(c.Resumed(job.id, fact.id))
        rearm(tick, job.id)


def connected(tick: Tick, fact: m.SshConnected, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None and fact.session not in job.seen and job.status != "stopping":
        tick.emit(c.Entered(job.id, fact.session, fact.serial))
        rearm(tick, job.id)


def closed(tick: Tick, fact: m.SshClosed, _: Stored) -> None:
    job = of_claimant(tick, fact)
    if job is not None and (fact.session in job.sessions or fact.session not in job.seen):
        tick.emit(c.Left(job.id, fact.session, fact.reason))
        rearm(tick, job.id)


def active(tick: Tick, fact: m.SshActive, stored: Stored) -> None:
    job = of_claimant(tick, fact)
    at = stored.time - max(0.0, fact.age)
    if job is not None and job.sessions and (fact.serial or at > job.active):
        tick.emit(c.Active(job.id, at, fact.serial))
        rearm(tick, job.id)


def expired(tick: Tick, fact: m.SessionExpired, _: Stored) -> None:
    job = tick.draft.job(fact.job)
    if job is None or job.attempt != fact.attempt or job.revision != fact.revision or not job.deadline:
        return
    if tick.draft.now < job.deadline - EARLY:  # a clock was ahead: arm it again, or it would never come
        tick.emit(c.Deadline(job.id, job.deadline_reason, job.deadline, job.warn_at, job.revision + 1))
        return
    run = tick.draft.run(job.run)
    assert run is not None
    if run.on_expiry == "resume":
        tick.emit(c.Continued(job.id, job.attempt, fact.reason, fact.id))
        tick.emit(c.Deadline(job.id, "", 0.0, 0.0, job.revision + 1))
    elif allowed(job.status, STOPPED):
        tick.emit(c.Stopped(job.id, job.attempt, result_of_expiry(job), fact.reason, "", fact.id))
        rearm(tick, job.id)


def warned(tick: Tick, fact: m.SessionWarned, _: Stored) -> None:
    job = tick.draft.job(fact.job)
    if job is None or job.attempt != fact.attempt or not job.deadline or not job.sessions:
        return
    if job.revision == fact.revision != job.warned:
        tick.emit(c.Warned(job.id, fact.reason, max(0.0, job.deadline - tick.draft.now), fact.id))
