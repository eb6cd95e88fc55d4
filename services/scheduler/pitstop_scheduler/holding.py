"""Who holds the slots of an org, and who waits for them (`pitstop top`). Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from pitstop_common.limits import MAX_PRIORITY, MAX_QUEUE_SHOWN
from pitstop_common.messages import Waiting
from pitstop_scheduler.grants import org_limit, reason_to_wait
from pitstop_scheduler.model import State
from pitstop_scheduler.views import job_view, run_view


def slots_of(state: State, org: str, sees: Callable[[str], bool]) -> dict[str, Any]:
    """The jobs of an org that hold a slot, oldest slot first, and the head of its queue, of the projects that one
    `sees`; their runs. As `ListReply` without `now`."""
    begun = [job for job in state.living_jobs() if job.status != "queued" and state.runs[job.run].org == org]
    views = [view for view in (job_view(job, state.runs[job.run], state.head) for job in begun) if view.use]
    debug = sum(1 for view in views if view.use == "debug")
    jobs = sorted((view for view in views if sees(view.project)), key=lambda view: (view.slot_since, view.job))
    queue = tuple(place for place in _places(state, org) if sees(place.project))
    runs = [state.runs[id] for id in dict.fromkeys([*(view.run for view in jobs), *(place.run for place in queue)])]
    return {
        "runs": [run_view(run, state.head) for run in runs], "jobs": jobs, "queue": queue,
        "waiting": state.ahead(org, -MAX_PRIORITY),
        "slots": {"limit": org_limit(state, org), "used": state.org(org).used, "debug": debug},
    }  # fmt: skip


def _places(state: State, org: str) -> list[Waiting]:
    found = []
    for position, id in enumerate(islice(state.waiting(org), MAX_QUEUE_SHOWN), start=1):
        job = state.jobs[id]
        run = state.runs[job.run]
        found.append(
            Waiting(
                job=id,
                run=run.id,
                project=run.project,
                key=job.key,
                actor=run.actor,
                priority=run.priority,
                queued=job.queued,
                position=position,
                reason=reason_to_wait(state, job) or "its turn comes next",
            )
        )
    return found
