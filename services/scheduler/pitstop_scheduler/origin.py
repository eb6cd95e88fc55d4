"""A rerun: what it takes from the run that it does again, and what it does not. Pure.

Same inputs: jobs as they were compiled, source, priority. Its actor is who asked for it. The pauses and times of the
session are inherited unless the request says its own; those whom the first run let in are not.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pitstop_common.faults import Faults
from pitstop_common.spec import JobSpec, PausePlan, RunSpec
from pitstop_scheduler.request import Again, BadRequest, Request
from pitstop_scheduler.request_rules import pause_jobs, policy_of


def inherit(request: Request, origin: RunSpec, results: Mapping[str, str]) -> Request:
    """The request with everything that the earlier run gives it. `results`: of its jobs, by id; empty: not ended.
    Raises BadRequest."""
    assert request.again is not None
    asked, faults = request.again, Faults()
    if request.project != origin.project:
        faults.add(("project",), f"there is no run {origin.run} in this project")
    jobs = _chosen(asked, origin, results, faults)
    session = msgspec.structs.replace(origin.session, users=(), keys=())
    if asked.ssh is not None:
        session = policy_of(asked.ssh, faults)
        jobs = pause_jobs(jobs, asked.ssh, faults) if jobs else ()
    if faults:
        raise BadRequest(faults.found, request.org, request.id)
    return msgspec.structs.replace(
        request, jobs=jobs, source=origin.source, session=session,
        priority=origin.priority if asked.priority is None else asked.priority,
        retry=origin.retry if asked.retry is None else asked.retry,
    )  # fmt: skip


def inherits_session(request: Request) -> bool:
    """Does it offer sessions only because the run that it does again did."""
    return request.again is not None and request.again.ssh is None and request.ssh


def without_session(request: Request, note: str) -> Request:
    """The same with no pause anywhere."""
    jobs = tuple(msgspec.structs.replace(job, pause=PausePlan()) for job in request.jobs)
    return msgspec.structs.replace(request, jobs=jobs, notes=(*request.notes, note))


def _chosen(asked: Again, origin: RunSpec, results: Mapping[str, str], faults: Faults) -> tuple[JobSpec, ...]:
    wanted = set()
    for at, name in enumerate(asked.jobs):
        found = {job.job for job in origin.jobs if name in (job.key, job.name, job.job)}
        if not found:
            there = ", ".join(job.key for job in origin.jobs[:20])
            faults.add(("jobs", at), f"run {origin.run} has no such job; it has {there}")
        wanted |= found
    jobs = tuple(job for job in origin.jobs if not asked.jobs or job.job in wanted)
    if not asked.failed:
        return jobs
    if any(not results.get(job.job) for job in jobs):
        faults.add(("failed",), f"run {origin.run} has not ended: which of its jobs fail is not known yet")
        return ()
    failed = tuple(job for job in jobs if results[job.job] != "success")
    if jobs and not failed:
        what = "these jobs" if asked.jobs else "every job"
        faults.add(("failed",), f"{what} of run {origin.run} succeeded; leave it out to run them again all the same")
    return failed
