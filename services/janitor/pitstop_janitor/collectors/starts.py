"""Jobs whose host is gone without a word: claimed, not over, and no living host holds them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.messages import Claim, JobView, SandboxLost
from pitstop_common.pull import rfc3339
from pitstop_janitor.collectors.jobs import OpenJobs, reconnects
from pitstop_janitor.collectors.lost_hosts import MISSED_LOOKS, living
from pitstop_janitor.collectors.saying import say
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.decide import forget, unchanged_for, unheld, watch
from pitstop_janitor.metrics import JanitorMetrics
from pitstop_janitor.model import HeldJob, Observation, Swept

log = logging.getLogger(__name__)

_decode_claim = msgspec.json.Decoder(Claim).decode


class Starts:
    """Asks who holds each of the jobs that are not over."""

    name = "starts"

    def __init__(
        self, bus: Bus, metrics: JanitorMetrics, config: JanitorConfig, jobs: OpenJobs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._bus, self._metrics, self._config, self._jobs, self._clock = bus, metrics, config, jobs, clock
        self._hosts, self._claims = Bucket(bus, "hosts"), Bucket(bus, "claims")
        self._observation = Observation()
        self._held: dict[str, HeldJob] = {}

    async def due(self) -> bool:
        """Every few seconds."""
        await asyncio.sleep(self._config.jobs_interval)
        return True

    async def sweep(self) -> Swept:
        """One look at all jobs that are not over."""
        now = self._clock()
        await self._jobs.follow()
        self._held = {job: held for job, held in self._held.items() if job in self._jobs.views}
        await self._find_claims()
        beats = living(await self._hosts.scan())
        self._observation = watch(
            self._observation, unheld(self._held.values(), beats), now=now, epoch=reconnects(self._bus),
            max_gap=MISSED_LOOKS * self._config.jobs_interval,
        )  # fmt: skip
        lost = unchanged_for(self._observation, self._config.host_lost_after)
        self._metrics.orphans.labels("job").set(len(self._observation.seen))
        freed = 0
        for job in lost:
            freed += await self._end(self._held[job])
        self._observation = forget(self._observation, lost)
        return Swept(len(self._jobs.views), freed)

    async def close(self) -> None:
        """Nothing is held."""

    async def _find_claims(self) -> None:
        """A claim never changes, so each is read once. A start without one waits in the work queue: no orphan."""
        for job, view in self._jobs.views.items():
            known = self._held.get(job)
            if view.host:
                self._held[job] = _held(view, Claim(host=view.host, incarnation=view.incarnation))
            elif known is None or known.attempt != view.attempt:
                self._held.pop(job, None)
                entry = await self._claims.get(f"{job}.{view.attempt}")
                if entry is not None and entry.value:
                    self._held[job] = _held(view, _decode_claim(entry.value))

    async def _end(self, job: HeldJob) -> bool:
        log.warning("job %s (attempt %d) is lost: host %s is gone", job.job, job.attempt, job.host)
        news = await say(self._bus, lost_job(job, time.time()))
        if news:
            self._metrics.reclaimed.labels("job", "no_host").inc()
        return news


def _held(view: JobView, claim: Claim) -> HeldJob:
    return HeldJob(view.org, view.run, view.job, view.attempt, claim.host, claim.incarnation, view.project)


def lost_job(job: HeldJob, now: float) -> SandboxLost:
    """One attempt is lost. `now`: seconds since the epoch, for people."""
    return SandboxLost(
        id=f"lost.{job.host}.{job.incarnation}.{job.job}.{job.attempt}", time=rfc3339(now), org=job.org, run=job.run,
        project=job.project, job=job.job, attempt=job.attempt, host=job.host, incarnation=job.incarnation,
    )  # fmt: skip
