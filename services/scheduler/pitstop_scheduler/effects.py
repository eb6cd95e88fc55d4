"""What a committed record brings about outside: events, starts, commands, timers. Pure: data in, messages out.

Ids are `<partition>.<record>.<n>`, so that a new owner who publishes again what a dead one may not have is heard
once. An effect that later records have overtaken (a start of a job that ended since) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.pull import rfc3339
from pitstop_common.telemetry import headers
from pitstop_scheduler import changes as c
from pitstop_scheduler.effect_kinds import Disarm as Disarm
from pitstop_scheduler.effect_kinds import Effect as Effect
from pitstop_scheduler.effect_kinds import Publish as Publish
from pitstop_scheduler.effect_kinds import ReportView as ReportView
from pitstop_scheduler.effect_kinds import View as View
from pitstop_scheduler.model import Job, Run, State
from pitstop_scheduler.rooms import fact_for
from pitstop_scheduler.words import farewell, resumption, warning

_FIRED_KEPT: Final = "48h"
"""How long a deadline that is due waits for a janitor."""

_OVER: Final = frozenset({"stopping", "finished"})
"""No deadline comes any more."""


class _Scope(NamedTuple):
    state: State
    prefix: str
    time: str


def effects(state: State, record: c.Record, sequence: int, partition: int = 0) -> list[Effect]:
    """All effects of a record that `state` has folded."""
    found: list[Effect] = []
    seen: set[View] = set()
    time = rfc3339(record.now)
    for number, change in enumerate(record.changes):
        handler = _HANDLERS.get(type(change))
        if handler is None:
            continue
        scope = _Scope(state, f"{partition}.{sequence}.{number}", time)
        for effect in handler(scope, change):
            if isinstance(effect, View):
                if effect in seen:
                    continue
                seen.add(effect)
            found.append(effect)
    return found


def _event(scope: _Scope, event: m.Event, trace: str) -> Publish:
    type_ = event.__struct_config__.tag
    return Publish(
        subjects.about(str(type_), event.org, event.run), m.encode(event), headers(f"{scope.prefix}.event", trace)
    )


def _base(scope: _Scope, run: Run, cause: str) -> dict[str, Any]:
    return {
        "id": f"{scope.prefix}.event", "time": scope.time, "org": run.org, "run": run.id, "project": run.project,
        "request": run.request, "cause": cause,
    }  # fmt: skip


def _find(scope: _Scope, id: str) -> tuple[Job, Run] | None:
    job = scope.state.job(id)
    run = scope.state.run(job.run) if job else None
    return (job, run) if job and run else None


def _queued(scope: _Scope, change: c.Queued) -> Iterator[Effect]:
    run = scope.state.run(change.run)
    if run is None:
        return
    keys = {key: id for id, key, *_ in change.jobs}
    event = m.RunQueued(**_base(scope, run, change.cause), actor=run.actor, jobs=keys, position=change.position,
                        rerun_of=change.rerun_of, notes=change.notes)  # fmt: skip
    yield _event(scope, event, run.trace)
    yield View(run.id, "")
    yield from (View(run.id, id) for id in run.jobs)
    if change.rerun_of:  # a key for each: it is written by itself, and again by whoever repeats this record
        link = m.encode(m.RerunView(run=run.id, actor=run.actor, created=run.created))
        yield Publish(subjects.rerun(run.org, change.rerun_of, run.id), link, headers(f"{scope.prefix}.rerun", ""))


def _duplicate(scope: _Scope, change: c.Duplicate) -> Iterator[Effect]:
    event = m.RunDuplicate(
        id=f"{scope.prefix}.event", time=scope.time, org=change.org, run=change.run, project=change.project,
        request=change.request, cause=change.cause,
    )  # fmt: skip
    yield _event(scope, event, change.trace)


def _granted(scope: _Scope, change: c.Granted) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None:
        return
    job, run = found
    if change.first:
        yield _event(scope, m.RunStarted(**_base(scope, run, ""), waited=change.waited), run.trace)
        yield View(run.id, "")
    if job.status == "starting" and job.attempt == change.attempt and not job.host:
        start = m.Start(org=run.org, run=run.id, job=job.id, attempt=job.attempt, project=run.project,
                        request=run.request, max_duration=run.max_duration, hold=job.hold.id if job.hold else "",
                        hold_user=job.hold.user if job.hold else "",
                        cause=f"{scope.prefix}.start")  # fmt: skip
        yield Publish(subjects.work(job.pool), m.encode(start), headers(f"{scope.prefix}.start", run.trace))
    yield View(run.id, job.id)


def _job_view(scope: _Scope, change: Any) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is not None:
        yield View(found[1].id, found[0].id)


def _pausing(scope: _Scope, change: c.PauseAsked | c.Claimed) -> Iterator[Effect]:
    """Whoever has the job hears of it: when it changes, and when the job gets another host."""
    job, run = _find(scope, change.job) or (None, None)
    if job and run and job.forced and job.host and (job.forced.armed or isinstance(change, c.PauseAsked)):
        pause = m.Pause(org=run.org, run=run.id, job=job.id, attempt=job.attempt, revision=job.forced.revision,
                        by=job.forced.by, off=not job.forced.armed, cause=scope.prefix)  # fmt: skip
        yield _command(scope, job.host, pause, run.trace)
    yield from _job_view(scope, change)


def _deadline(scope: _Scope, change: c.Deadline) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None or found[0].revision != change.revision:
        return
    job, run = found
    for kind, at in (("session", change.at), ("warning", change.warn_at)):
        if at and change.reason:
            id = f"{scope.prefix}.{kind}"
            yield _armed(id, job, run, kind, change.reason, at)
        elif job.status in _OVER:
            # Before that a purge could meet the timer that is armed next: what fires in vain is known by its revision.
            yield Disarm(subjects.timer(kind, job.id, job.attempt))
    yield View(run.id, job.id)


def _armed(id: str, job: Job, run: Run, kind: str, reason: m.ExpiryReason, at: float) -> Publish:
    fired = m.Fired(org=run.org, run=run.id, project=run.project, request=run.request, job=job.id,
                    attempt=job.attempt, reason=reason, revision=job.revision, warn=kind == "warning")  # fmt: skip
    schedule = {
        "Nats-Schedule": f"@at {rfc3339(at)}",
        "Nats-Schedule-Target": subjects.fired(kind, job.id, job.attempt),
        "Nats-Schedule-TTL": _FIRED_KEPT,
    }
    named = {**headers(id, run.trace), **schedule}
    return Publish(subjects.timer(kind, job.id, job.attempt), m.encode(fired), named, (job.id, job.revision))


def overdue(state: State, before: float, stamp: str) -> list[Publish]:
    """The timers of deadlines that should have come before `before` (seconds since the epoch): they fire at once.
    `stamp` tells this attempt from others. A timer can be lost: a former owner, stopped for a while, may have put an
    older one in its place; or the stream was."""
    found = []
    for job in state.living_jobs():
        run = state.run(job.run)
        if job.deadline_reason and 0 < job.deadline < before and run is not None:
            id = f"overdue.{job.id}.{job.attempt}.{job.revision}.{stamp}"
            found.append(_armed(id, job, run, "session", job.deadline_reason, job.deadline))
    return found


def _warned(scope: _Scope, change: c.Warned) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None or found[0].status != "paused":
        return
    job, run = found
    event = m.SessionExpiring(**_base(scope, run, change.cause), reason=change.reason, left=change.left)
    event = msgspec.structs.replace(event, job=job.id, attempt=job.attempt)
    yield _event(scope, event, run.trace)
    warn = m.Warn(org=run.org, run=run.id, job=job.id, attempt=job.attempt, reason=change.reason, left=change.left,
                  notice=warning(change.reason, change.left, job.id), cause=change.cause)  # fmt: skip
    yield _command(scope, job.host, warn, run.trace)


def _extended(scope: _Scope, change: c.Extended) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None:
        return
    job, run = found
    event = m.SessionExtended(**_base(scope, run, change.cause), until=rfc3339(change.until), by=change.by)
    yield _event(scope, msgspec.structs.replace(event, job=job.id, attempt=job.attempt), run.trace)
    yield View(run.id, job.id)


def _stopped(scope: _Scope, change: c.Stopped) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None:
        return
    job, run = found
    if job.status == "stopping":
        stop = m.Stop(org=run.org, run=run.id, job=job.id, attempt=change.attempt, result=change.result,
                      reason=change.reason, notice=farewell(change.reason, change.by), cause=change.cause)  # fmt: skip
        yield _command(scope, job.host, stop, run.trace)
    yield View(run.id, job.id)


def _continued(scope: _Scope, change: c.Continued) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None or found[0].status != "paused":
        return
    job, run = found
    resume = m.Resume(org=run.org, run=run.id, job=job.id, attempt=change.attempt, reason=change.reason,
                      notice=resumption(change.reason), cause=change.cause)  # fmt: skip
    yield _command(scope, job.host, resume, run.trace)


def _retried(scope: _Scope, change: c.Retried) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is None:
        return
    job, run = found
    event = m.JobRetried(**_base(scope, run, change.cause), reason=change.reason)
    yield _event(scope, msgspec.structs.replace(event, job=job.id, attempt=change.attempt), run.trace)
    yield View(run.id, job.id)


def _stray(scope: _Scope, change: c.Stray) -> Iterator[Effect]:
    stop = m.Stop(org=change.org, run=change.run, job=change.job, attempt=change.attempt, result="cancellation",
                  reason="superseded", notice="this attempt is over", cause=change.cause)  # fmt: skip
    yield _command(scope, change.host, stop, "")


def _command(scope: _Scope, host: str, command: m.HostCommand, trace: str) -> Publish:
    return Publish(subjects.work_of_host(host), m.encode(command), headers(f"{scope.prefix}.command", trace))


def _drained(scope: _Scope, change: c.Drained) -> Iterator[Effect]:
    host = scope.state.host(change.host)
    if change.tell and host is not None and host.drain_serial == change.serial:
        yield _command(scope, change.host, m.Drain(on=change.on, serial=change.serial), "")


def _run_ended(scope: _Scope, change: c.RunEnded) -> Iterator[Effect]:
    run = scope.state.run(change.run)
    if run is None:
        return
    jobs = [job for job in map(scope.state.job, run.jobs) if job is not None]
    results: dict[str, m.Result] = {job.key: job.result or "error" for job in jobs}
    event = m.RunFinished(**_base(scope, run, change.cause), result=change.result, reason=change.reason, jobs=results)
    yield _event(scope, event, run.trace)
    yield View(run.id, "")


def _reported(scope: _Scope, change: c.Reported) -> Iterator[Effect]:
    found = _find(scope, change.job)
    if found is not None:
        report = m.decode_report(change.report)
        view = m.ReportView(job=change.job, attempt=change.attempt, report=report, message=change.message)
        yield ReportView(found[1].id, view)


def _of_pool(scope: _Scope, change: c.Asked | c.Leased) -> Iterator[Effect]:
    """What one partition says to another."""
    partition, fact = fact_for(scope.state, change, f"{scope.prefix}.fact", scope.time)
    token, type_ = subjects.nobodies(scope.state.partitions)[partition], str(fact.__struct_config__.tag)
    yield Publish(subjects.about(type_, token, subjects.NOBODY), m.encode(fact), headers(fact.id))


_HANDLERS: dict[type[Any], Callable[[_Scope, Any], Iterator[Effect]]] = {
    c.Queued: _queued, c.Duplicate: _duplicate, c.Granted: _granted, c.Claimed: _pausing, c.Ready: _job_view,
    c.Paused: _job_view, c.Resumed: _job_view, c.Entered: _job_view, c.Left: _job_view, c.Active: _job_view,
    c.Deadline: _deadline, c.Warned: _warned, c.Extended: _extended, c.Stopped: _stopped, c.Continued: _continued,
    c.Stray: _stray, c.Retried: _retried, c.Ended: _job_view, c.RunEnded: _run_ended, c.Reported: _reported,
    c.HoldUsed: _job_view, c.PauseAsked: _pausing, c.PauseHeard: _job_view, c.PauseTaken: _job_view,
    c.Asked: _of_pool, c.Leased: _of_pool, c.Drained: _drained,
}  # fmt: skip
