"""Hosts as people see them: what the log knows, and their newest signs of life. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from pitstop_common.api_hosts import HostState, HostView
from pitstop_common.limits import HEARTBEAT_INTERVAL
from pitstop_common.messages import Heartbeat
from pitstop_scheduler.host import Host
from pitstop_scheduler.model import State
from pitstop_scheduler.transitions import HOLDS_ROOM

SILENT_AFTER: Final = 3 * HEARTBEAT_INTERVAL


class Sign(NamedTuple):
    """A heartbeat, and when it was stored."""

    beat: Heartbeat
    at: float


class OnHost(NamedTuple):
    """A job that the log has on a host."""

    job: str
    attempt: int
    org: str
    project: str


def jobs_by_host(states: Iterable[State]) -> dict[str, list[OnHost]]:
    """Those that take room."""
    found: dict[str, list[OnHost]] = {}
    for state in states:
        for job in state.living_jobs():
            run = state.run(job.run)
            if job.host and job.status in HOLDS_ROOM and run is not None:
                found.setdefault(job.host, []).append(OnHost(job.id, job.attempt, run.org, run.project))
    return found


def host_views(
    hosts: Iterable[Host], signs: Mapping[str, Sign], jobs: Mapping[str, list[OnHost]], now: float,
    sees: Callable[[str, str], bool],
) -> tuple[HostView, ...]:  # fmt: skip
    """By pool and name. `sees`: may the caller see the jobs of this org and project."""
    views = [_view(host, signs.get(host.id), jobs.get(host.id, []), now, sees) for host in hosts]
    return tuple(sorted(views, key=lambda view: (view.pool, view.host)))


def _view(
    host: Host, sign: Sign | None, jobs: list[OnHost], now: float, sees: Callable[[str, str], bool]
) -> HostView:  # fmt: skip
    held = len({*(sign.beat.jobs if sign else ()), *((one.job, one.attempt) for one in jobs)})
    state = _state(host, sign, held, now)
    capacity = sign.beat.capacity if sign else host.capacity
    return HostView(
        host=host.id, state=state, pool=host.pool, labels=host.labels, capacity=capacity,
        backend=sign.beat.backend if sign else "", version=sign.beat.version if sign else "",
        free=max(0, capacity - held) if state == "up" else 0, running=held,
        jobs=tuple(sorted(one.job for one in jobs if sees(one.org, one.project))),
        last_seen=max(host.heard, sign.at if sign else 0.0), drained=host.drained, drained_by=host.drained_by,
        knows=host.knows >= host.drain_serial,
    )  # fmt: skip


def _state(host: Host, sign: Sign | None, held: int, now: float) -> HostState:
    if sign is None:
        return "lost" if host.lost else "down"
    if now - sign.at > SILENT_AFTER:
        return "silent"
    if host.drained:
        return "draining" if held or not sign.beat.draining else "drained"
    return "stopping" if sign.beat.draining else "up"
