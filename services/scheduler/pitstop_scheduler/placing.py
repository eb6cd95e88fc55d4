"""Finds the pool of each job that says what it runs on, before anything is stored of its run."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import msgspec

from pitstop_common.faults import Faults
from pitstop_common.spec import JobSpec
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.model import State
from pitstop_scheduler.pool_labels import Aliases, Offer, choose, labels_of_pools, refusal, wanted
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.request import BadRequest, Request
from pitstop_scheduler.request_rules import STEPS_JOB

_UNSEEN: Final = 0.5
"""Seconds. Jobs that were placed since then may not be in the fold yet: requests that come together would all find the
same pool the least loaded."""
_LOOK: Final = 0.1
"""Seconds between two looks at all hosts, while each label that is asked for is known."""


class Placing:
    """Of one scheduler."""

    def __init__(
        self, logs: Logs, reading: Reading, aliases: Aliases, clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._logs, self._reading, self._aliases, self._clock = logs, reading, aliases, clock
        self._placed: deque[tuple[float, str]] = deque()
        self._unseen: Counter[str] = Counter()
        self._known: list[Offer] = []
        self._looked = 0.0

    async def place(self, request: Request) -> Request:
        """The request with a pool for each job that asks for labels or an image. Raises BadRequest that lists the pools
        there are, Unavailable."""
        if not any(wanted(job) for job in request.jobs):
            return request
        offers = self._offers()
        if any(self._choose(job, offers) is None for job in request.jobs if wanted(job)):
            await self._reading.all_fresh()  # a host may have come just now
            offers = self._offers(anew=True)
        faults = Faults()
        jobs = tuple(self._in_pool(job, offers, request, faults) for job in request.jobs)
        if faults:
            raise BadRequest(faults.found, request.org, request.id)
        return msgspec.structs.replace(request, jobs=jobs)

    def _in_pool(self, job: JobSpec, offers: list[Offer], request: Request, faults: Faults) -> JobSpec:
        if not wanted(job):
            return job
        pool = self._choose(job, [self._with_unseen(offer) for offer in offers])
        if pool is None:
            faults.add(_path(job, request), refusal(wanted(job)[-1], offers, self._aliases))
            return job
        self._placed.append((self._clock(), pool))
        self._unseen[pool] += 1
        return msgspec.structs.replace(job, pool=pool)

    def _choose(self, job: JobSpec, offers: list[Offer]) -> str | None:
        found = (choose(labels, offers, self._aliases) for labels in wanted(job))
        return next((pool for pool in found if pool), None)

    def _offers(self, *, anew: bool = False) -> list[Offer]:
        if anew or not self._known or self._clock() - self._looked > _LOOK:
            hosts = self._state().all_hosts()
            self._known = [Offer(pool, *found, self._load(pool)) for pool, found in labels_of_pools(hosts).items()]
            self._looked = self._clock()
        return self._known

    def _load(self, pool: str) -> float:
        """Jobs that the pool has and that wait for it, of all orgs, for each place."""
        states = [log.state for log in self._logs]
        jobs = sum(state.pool(pool).room + state.turns.waiting_for(pool) for state in states)
        return jobs / max(1, self._state().pool(pool).capacity)

    def _with_unseen(self, offer: Offer) -> Offer:
        while self._placed and self._placed[0][0] < self._clock() - _UNSEEN:
            self._unseen[self._placed.popleft()[1]] -= 1
        more = self._unseen[offer.pool] / max(1, self._state().pool(offer.pool).capacity)
        return offer._replace(load=offer.load + more)

    def _state(self) -> State:
        """Of any partition: each has all hosts."""
        return next(iter(self._logs)).state


def _path(job: JobSpec, request: Request) -> tuple[str, ...]:
    if request.again:
        return ("rerun_of",)
    if job.key == STEPS_JOB:
        return ("image",)
    return ("workflow", "jobs", job.key, "runs-on" if job.runs_on else "container")
