"""Answers about runs: from the fold while they live, from the read models after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api import JobStatusView, RunStatusView
from pitstop_common.api_orgs import OrgView
from pitstop_common.api_pools import PoolView
from pitstop_common.bucket import Bucket, newest
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, Unavailable
from pitstop_common.ids import run_of_job
from pitstop_common.spec import RunSpec
from pitstop_common.streams import SPECS
from pitstop_scheduler.clock import server_clock
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.grants import org_limit, pool_limit, reason_to_wait
from pitstop_scheduler.holding import slots_of
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.people import Found, People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.views import job_view, run_view

_decode_spec = msgspec.json.Decoder(RunSpec).decode
_SPECS_KEPT = 512
_CURRENT_WITHIN = 0.9
"""Seconds; who asks has a second's patience, and asks another scheduler then."""


class Reading:
    """Questions that any scheduler can answer."""

    def __init__(self, bus: Bus, logs: Logs, people: People, policy: Policy, contexts: Contexts) -> None:
        self._bus, self._logs, self._people, self._policy = bus, logs, people, policy
        self._contexts = contexts
        self._runs = Bucket(bus, "runs")
        self._specs: dict[str, RunSpec] = {}

    async def spec(self, org: str, run: str) -> RunSpec:
        """The compiled run. Raises NotFound, Unavailable."""
        if run in self._specs and self._specs[run].org == org:
            return self._specs[run]
        reply = await newest(self._bus, SPECS, subjects.spec(org, run), surely=True)
        if reply is None:
            raise NotFound(f"there is no run {run} in org {org}")
        spec = _decode_spec(reply.data)
        while len(self._specs) >= _SPECS_KEPT:
            del self._specs[next(iter(self._specs))]
        self._specs[run] = spec
        return spec

    async def current(self, run: str = "") -> None:
        """Until everything is folded that is now in the log about a run, the run of a job, or all of them. A process
        that was stopped, or cut off, for a while knows less, and others act on what it says. Raises Unavailable."""
        await self._logs.current(run, _CURRENT_WITHIN)

    async def fresh(self, org: str) -> None:
        """As `current`, of an org; free of cost where this process decides. Raises Unavailable."""
        await self._logs.fresh(org, _CURRENT_WITHIN)

    async def all_fresh(self) -> None:
        """As `fresh`, of all orgs."""
        await self._logs.all_fresh(_CURRENT_WITHIN)

    async def job(self, org: str | None, id: str) -> m.JobView:
        """One job; `org` None: of any. Raises NotFound, Unavailable."""
        having = self._logs.having(id)
        job = having.state.job(id) if having else None
        run = having.state.run(job.run) if having and job else None
        if having is not None and job is not None and run is not None:
            if org in {None, run.org}:
                return job_view(job, run, having.state.head)
            raise NotFound(f"there is no job {id} in org {org}")
        found = await self._runs.scan(f"{org or '*'}.{run_of_job(id)}.{id}")
        for entry in found.values():
            if entry.value is not None:
                return m.decode_job_view(entry.value)
        raise NotFound(f"there is no job {id}")

    async def status(self, org: str, id: str) -> RunStatusView:
        """A run by its id, or by the id of one of its jobs. Raises NotFound."""
        run_id = run_of_job(id)
        state = self._logs.state(org)
        run = state.run(run_id)
        if run is not None and run.org == org:
            jobs = [job for job in map(state.job, run.jobs) if job is not None]
            views = [job_view(job, run, state.head) for job in jobs]
            reruns = await self._reruns(org, run_id) if run.reruns or run.result else ()
            return RunStatusView(
                run=run_view(run, state.head), jobs=tuple([await self._status(v) for v in views]), reruns=reruns,
                notes=(await self.spec(org, run_id)).notes,
            )  # fmt: skip
        return await self._ended(org, run_id)

    async def results(self, org: str, run: str) -> dict[str, str]:
        """What the jobs of a run came to, by id; empty: not over. Raises NotFound, Unavailable."""
        await self.current(run)
        return {entry.job.job: entry.job.result for entry in (await self.status(org, run)).jobs}

    async def _reruns(self, org: str, run: str) -> tuple[m.RerunView, ...]:
        found = (await self._runs.scan(f"{org}.{run}.reruns.*")).values()
        views = [m.decode_rerun_view(entry.value) for entry in found if entry.value is not None]
        return tuple(sorted(views, key=lambda view: (view.created, view.run)))

    async def _ended(self, org: str, run: str) -> RunStatusView:
        view = await self._stored_run(org, run)
        stored = await self._runs.scan(f"{org}.{run}.*")
        views = [m.decode_job_view(one.value) for one in stored.values() if one.value is not None]
        views.sort(key=lambda view: int(view.job.rpartition("-")[2]))
        return RunStatusView(
            run=view, jobs=tuple([await self._status(view) for view in views]), reruns=await self._reruns(org, run),
            notes=(await self.spec(org, run)).notes,
        )  # fmt: skip

    async def _stored_run(self, org: str, run: str) -> m.RunView:
        entry = await self._runs.get(f"{org}.{run}")
        if entry is None or entry.value is None:
            raise NotFound(f"there is no run {run} in org {org}; `pitstop ls --all` shows those there are")
        return m.decode_run_view(entry.value)

    async def _status(self, view: m.JobView) -> JobStatusView:
        state = self._logs.state(view.org)
        report, message = await self.report(view)
        spec = await self.spec(view.org, view.run)
        allowed: list[dict[str, str]] = []
        job_spec = spec.job(view.job)
        if (job_spec.pause.any or guests_of(view)) and view.status != "finished":
            ways = await self._ways(spec, view)
            allowed = [one for one in ways if self._policy.barred(spec.org, spec.project, one["user"]) is None]
        position, reason = self._place(view)
        return JobStatusView(
            job=view, report=report, message=message, position=position, reason=reason, allowed=tuple(allowed),
            limit=org_limit(state, view.org), used=state.org(view.org).used,
            steps=tuple(step.name for step in job_spec.steps),
        )  # fmt: skip

    async def _ways(self, spec: RunSpec, view: m.JobView) -> list[dict[str, str]]:
        """Who could enter, and with what: keys by their fingerprints, else words."""
        keys = await self.keys(spec, view)
        found = [{"user": key.user, "fingerprint": key.fingerprint} for key in keys.keys]
        found += [{"user": user, "fingerprint": "keys that are still to be read"} for user in sorted(keys.pending)]
        if self._policy.ssh(spec.org).user_ca:
            found += [{"user": user, "fingerprint": "certificate"} for user in dict.fromkeys(named(spec, view)) if user]
        return found

    def _place(self, view: m.JobView) -> tuple[int, str]:
        state = self._logs.state(view.org)
        job = state.job(view.job)
        if view.status != "queued" or job is None:
            return 0, ""
        for place, id in enumerate(state.waiting(view.org), start=1):
            if id == view.job:
                return place, reason_to_wait(state, job) or "its turn comes next"
        return 0, ""

    async def report(self, view: m.JobView) -> tuple[m.JobReport | None, str]:
        """What the host said of a job last, and its words to people."""
        reported = self._logs.of(view.org).reports.get(view.job)
        if view.status == "queued":  # an earlier attempt was lost, and what it said with it
            return None, ""
        if reported is not None and reported.attempt == view.attempt:
            return m.decode_report(reported.report), reported.message
        with contextlib.suppress(Unavailable):
            entry = await self._runs.get(f"{view.org}.{view.run}.{view.job}.report")
            if entry is not None and entry.value is not None:
                stored = m.decode_report_view(entry.value)
                if stored.attempt == view.attempt:
                    return stored.report, stored.message
        return None, ""

    async def whose(self, org: str, id: str) -> tuple[str, str]:
        """The project and the actor of a run, by its id or that of a job. Raises NotFound, Unavailable."""
        run = self._logs.state(org).run(run_of_job(id))
        if run is not None and run.org == org:
            return run.project, run.actor
        view = await self._stored_run(org, run_of_job(id))
        return view.project, view.actor

    async def keys(self, spec: RunSpec, view: m.JobView, *, wait: float = 0) -> Found:
        """The keys of whom the run names for this job, and those that came with the request, which count as the
        actor's. `wait`: for sources of linked keys, seconds."""
        guests = guests_of(view)
        raw = spec.session.keys if spec.job(view.job).pause.any or not guests or spec.actor in guests else ()
        return await self._people.allowed(spec.org, spec.actor, named(spec, view), raw, wait=wait)

    def org(self, name: str) -> OrgView:
        """Limits of an org, and what is in use."""
        state = self._logs.state(name)
        org = state.org(name)
        debug = sum(1 for job in state.jobs.values() if job.status == "paused" and state.runs[job.run].org == name)
        return OrgView(
            org=name, configured=org.configured, slots=org_limit(state, name), own_slots=org.slots, used=org.used,
            debug=debug, waiting=sum(1 for _ in state.waiting(name)), weight=org.weight, projects=org.projects,
            used_by_project={project: used for project, used in org.used_by_project.items() if used},
            pressure=org.pressure, max_duration=org.max_duration, longest_session=org.longest_session,
            roles=org.roles, rules=org.rules, ssh=org.ssh, pools=self.pools(),
        )  # fmt: skip

    def pools(self) -> tuple[PoolView, ...]:
        """Pools that have hosts, jobs or a limit of their own, with the jobs of all orgs."""
        found = []
        for name in sorted({name for log in self._logs for name in log.state.pools}):
            state = self._logs.sharing(name)[1].state
            pool, used = state.pool(name), sum(log.state.pool(name).slots for log in self._logs)
            if pool.capacity or pool.limit is not None or used:
                found.append(PoolView(pool=name, slots=pool_limit(state, name), own_slots=pool.limit, used=used,
                                      places=pool.capacity))  # fmt: skip
        return tuple(found)

    async def now(self) -> float:
        """The server's clock, seconds since the epoch; that of the newest fact where the server does not say."""
        with contextlib.suppress(Unavailable):
            return await server_clock(self._bus)
        return max(log.state.now for log in self._logs)

    async def slots(self, org: str, sees: Callable[[str], bool]) -> dict[str, object]:
        """Who holds the slots of an org, and its queue."""
        return {**slots_of(self._logs.state(org), org, sees), "now": await self.now()}

    async def list(self, org: str, *, everything: bool, sees: Callable[[str], bool]) -> dict[str, object]:
        """Runs and jobs of an org, of the projects that one `sees`: living ones, or all that are remembered; and its
        slots."""
        state = self._logs.state(org)
        runs = {run.id: run_view(run, state.head) for run in state.runs.values() if run.org == org}
        jobs = {
            job.id: job_view(job, state.runs[job.run], state.head)
            for job in state.jobs.values()
            if job.run in runs and (everything or job.status != "finished")
        }
        if everything:
            for key, entry in (await self._runs.scan(f"{org}.>")).items():
                parts = key.split(".")
                if entry.value is not None and len(parts) == 2:
                    runs.setdefault(parts[1], m.decode_run_view(entry.value))
                elif entry.value is not None and len(parts) == 3:
                    jobs.setdefault(parts[2], m.decode_job_view(entry.value))
        else:
            runs = {id: run for id, run in runs.items() if run.status != "finished"}
        used = state.org(org).used
        debug = sum(1 for job in jobs.values() if job.use == "debug")
        runs = {id: run for id, run in runs.items() if sees(run.project)}
        jobs = {id: job for id, job in jobs.items() if sees(job.project)}
        return {
            "runs": sorted(runs.values(), key=lambda run: run.created),
            "jobs": sorted(jobs.values(), key=lambda job: (job.queued, job.job)),
            "slots": {"limit": org_limit(state, org), "used": used, "debug": debug},
            "now": await self.now(),
        }


def guests_of(view: m.JobView) -> tuple[str, ...]:
    """Whom this job lets in beside those whom its run names: for whom a hold has paused it, and who had it paused."""
    return (view.held_for, *view.guests) if view.held_for else view.guests


def named(spec: RunSpec, view: m.JobView) -> tuple[str, ...]:
    """Those for whom the run offers a session, and the job's guests. Of a job that offers none: those who would be let
    in, who are told that."""
    guests = guests_of(view)
    if guests and not spec.job(view.job).pause.any:
        return guests
    return tuple(user for user in (spec.actor, *spec.session.users, *guests) if user or spec.session.keys)
