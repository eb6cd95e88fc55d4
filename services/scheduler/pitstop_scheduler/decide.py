"""The rules of the scheduler: `decide(state, facts, now)` says what changes. Pure; the state is left as it was.

Facts come at least once, late, and in any order: a fact that is not of the job's claimant, of another attempt, or
that the job's status does not allow, changes nothing. Deciding twice on one fact yields no second change, in one
tick and across ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.grants import next_jobs
from pitstop_scheduler.model import State
from pitstop_scheduler.rules import holds, hosts, pauses, pools, runs, sessions
from pitstop_scheduler.tick import Decision, Stored, Tick, rearm


def decide(state: State, facts: Iterable[Stored], now: float) -> Decision:
    """What these facts bring about. `now` is the clock when there is no fact; else time stamps decide. Without facts
    all that wait are looked at: an owner does that once, because its limits may be others."""
    tick = Tick(state)
    draft = tick.draft
    draft.now = max(draft.now, now)
    everybody = True
    for stored in facts:
        everybody = False
        if stored.sequence <= draft.watermark:
            continue
        draft.watermark = stored.sequence
        draft.now = max(draft.now, stored.time)
        handler = _HANDLERS.get(type(stored.fact))
        if handler is not None:
            handler(tick, stored.fact, stored)
    pools.share_out(tick)
    _grant(tick, everybody)
    pools.ask(tick)
    _press(tick, everybody)
    return Decision(tuple(tick.changes), draft.watermark, draft.now)


def _grant(tick: Tick, everybody: bool) -> None:
    draft = tick.draft
    for job in next_jobs(draft, everybody=everybody):
        run = draft.run(job.run)
        assert run is not None
        hold = holds.hold_for(tick, job, run)
        tick.emit(c.Granted(job.id, job.attempt + 1, run.started == 0, draft.now - job.queued, hold))


def _press(tick: Tick, everybody: bool) -> None:
    """Where runs begin or cease to wait, idle limits of the org's sessions change."""
    draft = tick.draft
    orgs = {*draft.touched, *draft.below.orgs, *draft.below.queues} if everybody else draft.touched
    flipped = [org for org in sorted(orgs) if draft.waits(org) != bool(draft.org(org).pressed)]
    for org in flipped:
        tick.emit(c.Pressed(org, not draft.org(org).pressed))
    for org in flipped:
        for job in tuple(draft.visitors(org)):
            rearm(tick, job.id)


_HANDLERS: Final[dict[type[Any], Callable[[Tick, Any, Stored], None]]] = {
    m.RunAccepted: runs.accepted, m.RunCancel: runs.cancel, m.JobClaimed: hosts.claimed, m.SandboxReady: hosts.ready,
    m.SandboxFailed: hosts.failed, m.SandboxLost: hosts.lost, m.SandboxRoom: hosts.room,
    m.StepFinished: hosts.step_finished, m.JobPaused: sessions.paused, m.JobResumed: sessions.resumed,
    m.JobFinished: hosts.finished, m.SshConnected: sessions.connected, m.SshActive: sessions.active,
    m.SshClosed: sessions.closed, m.SessionExpired: sessions.expired, m.SessionWarned: sessions.warned,
    m.RunExtend: runs.extend, m.OrgConfigured: runs.configured,
    m.RunPause: pauses.asked, m.JobPausing: pauses.heard, m.HoldSet: holds.set_, m.HoldRemove: holds.remove,
    m.HostDrain: hosts.drain, m.PoolConfigured: pools.configured, m.PoolAsked: pools.asked, m.PoolShared: pools.shared,
}  # fmt: skip
