"""Rules for what publishers and people ask: runs, cancels, extensions, limits. Pure."""

from __future__ import annotations

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.deadlines import has_session, longest, longest_extension
from pitstop_scheduler.tick import Stored, Tick, end, rearm


def accepted(tick: Tick, fact: m.RunAccepted, _: Stored) -> None:
    source = tick.draft.source_of(fact.run)
    if source == fact.source:
        return
    if source is not None:
        tick.emit(c.Duplicate(fact.run, fact.org, fact.project, fact.request, fact.source, fact.trace, fact.id))
        return
    jobs = tuple((job.job, job.key, job.pool, job.ssh) for job in fact.jobs)
    tick.emit(
        c.Queued(
            fact.run, fact.org, fact.project, fact.request, fact.actor, fact.priority, fact.source, fact.trace, jobs,
            fact.connect_window, fact.idle_timeout, longest(fact.max_duration, tick.draft.org(fact.org)),
            fact.on_expiry, tick.draft.ahead(fact.org, fact.priority) + 1, fact.id, fact.retry == "infrastructure",
            fact.rerun_of, fact.notes, fact.ref.removeprefix("refs/heads/"),
        )
    )  # fmt: skip


def cancel(tick: Tick, fact: m.RunCancel, _: Stored) -> None:
    run = tick.draft.run(fact.run)
    if run is None or run.org != fact.org:
        return
    for id in run.jobs:
        job = tick.draft.job(id)
        if job is None or (fact.job and fact.job != id) or job.status in {"stopping", "finished"}:
            continue
        reason = fact.reason or "cancelled"
        if job.host:
            tick.emit(c.Stopped(id, job.attempt, "cancellation", reason, fact.by, fact.id))
        else:
            end(tick, job, "cancellation", reason, fact.id)
        rearm(tick, id)


def extend(tick: Tick, fact: m.RunExtend, _: Stored) -> None:
    run = tick.draft.run(fact.run)
    job = tick.draft.job(fact.job)
    if run is None or job is None or job.run != run.id or run.org != fact.org or not has_session(job):
        return
    until = longest_extension(job, tick.draft.org(run.org), tick.draft.now, fact.seconds)
    if until > max(job.keep_until, tick.draft.now):
        tick.emit(c.Extended(job.id, until, fact.by, fact.id))
        rearm(tick, job.id)


def configured(tick: Tick, fact: m.OrgConfigured, _: Stored) -> None:
    tick.emit(
        c.Limits(
            fact.org, fact.slots, max(1, fact.weight), dict(fact.projects), fact.pressure, fact.longest_session,
            fact.max_duration, fact.roles, fact.rules, fact.ssh,
        )
    )  # fmt: skip
    for job in tuple(tick.draft.living_jobs()):
        run = tick.draft.run(job.run)
        if run is not None and run.org == fact.org:
            rearm(tick, job.id)
