"""When a session ends by itself, and when people are warned of it (features D3-D7, D9). Pure: times in, times out."""

from __future__ import annotations

from typing import NamedTuple

from pitstop_common.limits import WARN_BEFORE
from pitstop_common.messages import ExpiryReason, Result
from pitstop_scheduler.model import Job, Org, Run


class Due(NamedTuple):
    """Seconds since the epoch. `at` 0: not by itself. `warn_at` 0: nobody is there to be warned."""

    reason: ExpiryReason | None
    at: float
    warn_at: float = 0.0


NEVER = Due(None, 0.0)


def due(job: Job, run: Run, org: Org) -> Due:
    """The first deadline of a job. Only a paused job has one: steps that run are never cut off by a session."""
    if job.status != "paused":
        return NEVER
    if not job.sessions:
        candidates = [Due("connect_window", max(job.paused + run.connect_window, job.keep_until))]
    else:
        candidates = [_idle(job, run.idle_timeout, "idle")]
        if org.pressed and org.pressure < run.idle_timeout:
            candidates.append(_under_pressure(job, org))
    if job.first_login:
        longest = max(job.first_login + run.max_duration, job.keep_until)
        candidates.append(_warned(Due("max_duration", longest), run.max_duration, bool(job.sessions)))
    return min(candidates, key=lambda candidate: candidate.at)


def _idle(job: Job, limit: float, reason: ExpiryReason) -> Due:
    return _warned(Due(reason, max(max(job.active, job.paused) + limit, job.keep_until)), limit, True)


def _under_pressure(job: Job, org: Org) -> Due:
    """Who was idle for long before others came to wait is warned first, as everybody is."""
    found = _idle(job, org.pressure, "pressure")
    at = max(found.at, org.pressed + lead(org.pressure))
    return _warned(Due("pressure", at), org.pressure, True)


def _warned(due_: Due, limit: float, somebody: bool) -> Due:
    return due_._replace(warn_at=due_.at - lead(limit) if somebody else 0.0)


def lead(limit: float) -> float:
    """How long before its end people are warned of a limit, seconds."""
    return min(WARN_BEFORE, limit / 2)


def longest(asked: float, org: Org) -> float:
    """How long a session of a new run lasts from its first login, seconds: as its request says, else (0) as its org
    says; never longer than the org's longest session. Limits that change later cut off nobody."""
    return min(asked or org.max_duration, org.longest_session)


def has_session(job: Job) -> bool:
    """Is there a session that could be kept: the job waits for its person, or somebody is inside."""
    return job.status == "paused" or (job.status == "running" and bool(job.sessions))


def longest_extension(job: Job, org: Org, now: float, seconds: float) -> float:
    """Until when an extension keeps a session: as asked, but within the org's cap from the first login (from the pause,
    when nobody has been inside)."""
    return min(now + seconds, (job.first_login or job.paused or now) + org.longest_session)


def result_of_expiry(job: Job) -> Result:
    """What a job ends as when its session expires with action `cancel` (D8)."""
    if job.pause in {"at_end", "direct"}:
        return job.so_far
    if job.pause == "on_failure" and job.so_far == "failure":
        return "failure"
    return "cancellation"
