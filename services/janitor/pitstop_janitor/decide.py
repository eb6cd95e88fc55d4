"""Who is gone, and what has no owner. Pure: what was seen and the time go in, a verdict comes out.

Nothing is called gone because of a clock that stands elsewhere. A thing is gone when this janitor looked at it again
and again, on its own monotonic clock, and it never changed. An outage must not look like that: after a reconnect, or
when the janitor itself did not look for a while, every observation starts anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pitstop_common.messages import Heartbeat, JobView
from pitstop_janitor.model import Held, HeldJob, Mark, Observation, Sighting


def watch(
    before: Observation, found: Mapping[str, Mark], *, now: float, epoch: int, max_gap: float
) -> Observation:  # fmt: skip
    """The observation after one more look. `epoch` counts reconnects; a look more than `max_gap` seconds after the
    last one, or before it, continues nothing."""
    unbroken = epoch == before.epoch and 0 <= now - before.at <= max_gap
    known = before.seen if unbroken else {}
    seen = {key: _sighting(known.get(key), mark, now) for key, mark in found.items()}
    return Observation(at=now, epoch=epoch, seen=seen)


def _sighting(known: Sighting | None, mark: Mark, now: float) -> Sighting:
    return known if known is not None and known.mark == mark else Sighting(mark, now)


def unchanged_for(observation: Observation, seconds: float) -> dict[str, Mark]:
    """What has looked the same for at least so long."""
    return {key: one.mark for key, one in observation.seen.items() if observation.at - one.since >= seconds}


def forget(observation: Observation, keys: Iterable[str]) -> Observation:
    """The same without some keys: they have been dealt with, and are observed from the start if they stay."""
    dropped = set(keys)
    kept = {key: one for key, one in observation.seen.items() if key not in dropped}
    return Observation(at=observation.at, epoch=observation.epoch, seen=kept)


def signs_of_life(beats: Mapping[str, Heartbeat]) -> dict[str, Mark]:
    """The mark of each host. It changes with every beat; a new incarnation is a new life, however low its count."""
    return {host: (beat.incarnation, beat.beat) for host, beat in beats.items()}


def unheld(jobs: Iterable[HeldJob], beats: Mapping[str, Heartbeat]) -> dict[str, Mark]:
    """The jobs that no living host holds, marked by their claim."""
    return {job.job: (job.attempt, job.host, job.incarnation) for job in jobs if not _is_held(job, beats)}


def _is_held(job: HeldJob, beats: Mapping[str, Heartbeat]) -> bool:
    beat = beats.get(job.host)
    if beat is None:
        return False
    # The incarnation that claimed a job is trusted to end it. A later one must have adopted it: a holder without its
    # host process ends its job well before the janitor loses patience.
    return beat.incarnation == job.incarnation or (job.job, job.attempt) in beat.jobs


def inventory(beats: Iterable[Heartbeat]) -> dict[str, Held]:
    """All that hosts hold, by names that tell each from all others."""
    found: dict[str, Held] = {}
    for beat in beats:
        things = [
            Held(host=beat.host, incarnation=beat.incarnation, kind="attempt", key=f"{job}.{attempt}", job=job,
                 attempt=attempt)
            for job, attempt in beat.jobs
        ]  # fmt: skip
        things += [Held(host=beat.host, incarnation=beat.incarnation, kind=kind, key=key)
                   for kind, key in beat.leftovers]  # fmt: skip
        found |= {f"{one.host}/{one.kind}/{one.key}": one for one in things}
    return found


def ownerless(held: Mapping[str, Held], jobs: Mapping[str, JobView]) -> dict[str, Mark]:
    """Those that no job asks for: `jobs` are all that are neither queued nor finished. The log decides; this is only
    enough for a question."""
    return {name: (one.incarnation,) for name, one in held.items() if not _is_wanted(one, jobs.get(one.job))}


def _is_wanted(held: Held, view: JobView | None) -> bool:
    if held.kind != "attempt" or view is None:
        return False
    return view.attempt <= held.attempt and view.status != "stopping"
