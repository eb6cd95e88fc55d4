"""State is a fold of the log: `apply` is the only code that changes a state (or a draft of one)."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Any

from pitstop_scheduler import changes as c
from pitstop_scheduler import fold_of_holds as holds
from pitstop_scheduler import fold_of_hosts as hosts
from pitstop_scheduler import fold_of_pauses as pauses
from pitstop_scheduler import fold_of_pools as pools
from pitstop_scheduler.model import Job, Run, State
from pitstop_scheduler.transitions import (
    CLAIMED,
    ENDED,
    GRANTED,
    HOLDS_ROOM,
    HOLDS_SLOT,
    PAUSED,
    READY,
    RESUMED,
    RETRIED,
    STOPPED,
    after,
)


def fold(state: State, record: c.Record, sequence: int) -> None:
    """Take in one record, stored at `sequence`."""
    begin(state, record, sequence)
    for change in record.changes:
        step(state, change, sequence)
    state.forget(record.published_to)


def begin(state: State, record: c.Record, sequence: int) -> None:
    """Take in a record's head. Each of its changes and the forgetting follow."""
    state.head, state.epoch, state.owner = sequence, record.epoch, record.owner
    state.records += 1
    state.watermark = max(state.watermark, record.watermark)
    state.now = max(state.now, record.now)


def step(state: State, change: c.AnyChange, sequence: int) -> None:
    """Take in one change of the record at `sequence`. Raises as `apply`."""
    apply(state, change)
    if isinstance(change, c.RunEnded):
        state.ended.append((sequence, change.run))


def apply(state: State, change: c.AnyChange) -> None:
    """Change a state. Raises IllegalTransition when a job cannot take the change."""
    handler = _HANDLERS.get(type(change))
    if handler is not None:
        handler(state, change)


def _queued(state: State, change: c.Queued) -> None:
    org, project = intern(change.org), intern(change.project)  # many runs have the same: once in memory
    run = Run(
        change.run, org, project, change.request, intern(change.actor), change.priority, change.source,
        change.trace, tuple(job for job, *_ in change.jobs), change.connect_window, change.idle_timeout,
        change.max_duration, change.on_expiry, created=state.now, retry=change.retry, place=state.placed + 1,
        rerun_of=change.rerun_of, ref=intern(change.ref),
    )  # fmt: skip
    if change.rerun_of and state.run(change.rerun_of) is not None:
        state.edit_run(change.rerun_of).reruns += 1
    jobs = [
        Job(id, run.id, intern(key), intern(pool), offers, queued=state.now) for id, key, pool, offers in change.jobs
    ]
    state.add(run, jobs)
    for job in run.jobs:
        state.enqueue(run.org, run.priority, job)


def _granted(state: State, change: c.Granted) -> None:
    job = _move(state, change.job, GRANTED)
    job.attempt, job.granted = change.attempt, state.now
    pool = state.edit_pool(job.pool)
    pool.fresh = max(0, pool.fresh - 1)
    run = state.edit_run(job.run)
    run.started = run.started or state.now
    state.dequeue(run.org, run.priority, job.id)
    if change.hold:
        holds.granted_with(state, change, run.org)
    org = state.edit_org(run.org)
    state.turn = max(org.turn, state.turn)
    org.turn = state.turn + 1 / max(1, org.weight)
    state.turns.served(job.pool)


def _claimed(state: State, change: c.Claimed) -> None:
    job = _move(state, change.job, CLAIMED)
    job.host, job.incarnation, job.seal = change.host, change.incarnation, change.key


def _ready(state: State, change: c.Ready) -> None:
    _move(state, change.job, READY)


def _paused(state: State, change: c.Paused) -> None:
    job = _move(state, change.job, PAUSED)
    job.pause, job.so_far, job.paused = change.reason, change.so_far, state.now


def _resumed(state: State, change: c.Resumed) -> None:
    job = _move(state, change.job, RESUMED)
    job.pause, job.paused = "", 0


def _entered(state: State, change: c.Entered) -> None:
    job = state.edit_job(change.job)
    job.sessions |= {change.session}
    visits(state, job)
    job.seen |= {change.session}
    job.first_login = job.first_login or state.now
    job.active = state.now
    job.serial = max(job.serial, change.serial)


def _left(state: State, change: c.Left) -> None:
    job = state.edit_job(change.job)
    job.sessions -= {change.session}
    visits(state, job)
    job.seen |= {change.session}
    if not job.sessions and job.status == "paused":
        job.paused = state.now  # everybody has left: the connect window starts anew


def _active(state: State, change: c.Active) -> None:
    job = state.edit_job(change.job)
    job.active = max(job.active, change.at)
    job.serial = max(job.serial, change.serial)


def _deadline(state: State, change: c.Deadline) -> None:
    job = state.edit_job(change.job)
    job.deadline, job.deadline_reason, job.revision = change.at, change.reason, change.revision
    job.warn_at = change.warn_at


def _warned(state: State, change: c.Warned) -> None:
    job = state.edit_job(change.job)
    job.warned = job.revision


def _extended(state: State, change: c.Extended) -> None:
    job = state.edit_job(change.job)
    job.keep_until = max(job.keep_until, change.until)


def _pressed(state: State, change: c.Pressed) -> None:
    state.edit_org(change.org).pressed = state.now if change.waits else 0


def _stopped(state: State, change: c.Stopped) -> None:
    job = _move(state, change.job, STOPPED)
    job.result, job.reason = change.result, change.reason


def _retried(state: State, change: c.Retried) -> None:
    job = _move(state, change.job, RETRIED)
    job.earlier = (*job.earlier, change.reason)
    job.host = job.incarnation = job.seal = job.pause = ""
    job.so_far, job.sessions, job.seen = "success", frozenset(), frozenset()
    job.granted = job.paused = job.active = job.keep_until = 0
    job.serial, job.queued, job.hold = 0, state.now, None
    job.forced = job.forced and job.forced.anew()
    run = state.edit_run(job.run)
    state.requeue(run.org, run.priority, job.id)


def _ended(state: State, change: c.Ended) -> None:
    job = _move(state, change.job, ENDED)
    job.result, job.reason, job.finished = change.result, change.reason, state.now
    job.sessions, job.seal = frozenset(), ""
    run = state.edit_run(job.run)
    visits(state, job)
    state.dequeue(run.org, run.priority, job.id)


def _run_ended(state: State, change: c.RunEnded) -> None:
    run = state.edit_run(change.run)
    run.result, run.reason, run.finished = change.result, change.reason, state.now


def _reported(state: State, change: c.Reported) -> None:
    job = state.edit_job(change.job)
    job.serial = max(job.serial, change.serial)


def _limits(state: State, change: c.Limits) -> None:
    org = state.edit_org(change.org)
    org.slots, org.weight, org.projects = change.slots, change.weight, dict(change.projects)
    org.pressure, org.longest_session = change.pressure, change.longest_session
    org.max_duration = change.max_duration
    org.roles, org.rules, org.ssh = change.roles, change.rules, change.ssh
    org.configured = True
    state.turns.eligible(change.org)


def _defaults(state: State, change: c.Defaults) -> None:
    state.org_slots, state.project_slots = change.org_slots, change.project_slots
    state.pool_slots = change.pool_slots
    state.turns.all_eligible()
    state.partition, state.partitions = change.partition, change.partitions


def visits(state: State, job: Job) -> None:
    """The sessions of a job are others now."""
    run = state.run(job.run)
    assert run is not None
    inside = state.visited.setdefault(run.org, set())
    (inside.add if job.sessions else inside.discard)(job.id)


def _move(state: State, id: str, change: str) -> Job:
    """Take the transition, and keep the sums in step with it."""
    job = state.edit_job(id)
    old, new = job.status, after(job.status, change)
    run = state.run(job.run)
    assert run is not None
    slot = (new in HOLDS_SLOT) - (old in HOLDS_SLOT)
    room = (new in HOLDS_ROOM) - (old in HOLDS_ROOM)
    if slot or room:
        pool = state.edit_pool(job.pool)
        pool.slots += slot
        pool.room += room
    if slot:
        org = state.edit_org(run.org)
        org.used += slot
        org.used_by_project[run.project] = org.used_by_project.get(run.project, 0) + slot
        if slot < 0:
            state.turns.eligible(run.org)
    job.status = new
    return job


_HANDLERS: dict[type[Any], Callable[[State, Any], None]] = {
    c.Queued: _queued, c.Granted: _granted, c.Claimed: _claimed, c.Ready: _ready, c.Paused: _paused,
    c.Resumed: _resumed, c.Entered: _entered, c.Left: _left, c.Active: _active, c.Deadline: _deadline,
    c.Warned: _warned, c.Extended: _extended, c.Pressed: _pressed, c.Stopped: _stopped, c.Retried: _retried,
    c.Ended: _ended, c.RunEnded: _run_ended, c.Room: hosts.room, c.HostLost: hosts.lost,
    c.Drained: hosts.drained, c.Reported: _reported,
    c.Limits: _limits, c.Defaults: _defaults, c.PoolLimit: pools.limit, c.Asked: pools.asked,
    c.Shared: pools.shared, c.Demand: pools.demand, c.Leased: pools.leased,
    c.HoldSet: holds.hold_set, c.HoldRemoved: holds.hold_removed, c.HoldUsed: holds.hold_used,
    c.PauseAsked: pauses.asked, c.PauseHeard: pauses.heard, c.PauseTaken: pauses.taken,
}  # fmt: skip
