"""Hosts as people see them: what state each is in."""

from __future__ import annotations

import pytest

from pitstop_common.messages import Heartbeat
from pitstop_scheduler.host import Host
from pitstop_scheduler.host_views import OnHost, Sign, host_views

NOW = 1000.0


def host(*, drained: bool = False, lost: bool = False, knows: int = 1) -> Host:
    return Host("h", "i", "default", 4, 1, ("linux",), drained, "acme/ada", 1, knows, 900.0, lost)


def sign(*jobs: str, draining: bool = False, ago: float = 1.0) -> Sign:
    beat = Heartbeat(host="h", incarnation="i", pool="default", capacity=4, beat=1, draining=draining,
                     jobs=tuple((job, 1) for job in jobs))  # fmt: skip
    return Sign(beat, NOW - ago)


HELD = [OnHost("a-1", 1, "acme", "web"), OnHost("b-1", 1, "other", "web")]


@pytest.mark.parametrize(
    ("known", "seen", "jobs", "state", "free"),
    [
        (host(), sign(), [], "up", 4), (host(), sign("a-1"), HELD, "up", 2), (host(), sign("a-1", "b-1"), [], "up", 2),
        (host(), sign(ago=16), [], "silent", 0), (host(), None, HELD, "down", 0),
        (host(lost=True), None, [], "lost", 0),
        (host(), sign(draining=True), [], "stopping", 0), (host(drained=True), sign(draining=True), [], "drained", 0),
        (host(drained=True), sign(draining=True), HELD, "draining", 0),
        (host(drained=True), sign("a-1", draining=True), [], "draining", 0),  # the log has it over; its folder is there
        (host(drained=True, knows=0), sign(), [], "draining", 0),  # it may still take one: it has not heard
        (host(drained=True), None, [], "down", 0), (host(drained=True), sign(ago=16, draining=True), [], "silent", 0),
    ],
)  # fmt: skip
def test_the_state_of_a_host(known: Host, seen: Sign | None, jobs: list[OnHost], state: str, free: int) -> None:
    signs = {"h": seen} if seen else {}
    (view,) = host_views([known], signs, {"h": jobs}, NOW, lambda org, _project: org == "acme")
    assert (view.state, view.free) == (state, free)
    assert view.jobs == tuple(one.job for one in jobs if one.org == "acme")
    assert view.last_seen == (seen.at if seen else 900.0)


def test_two_attempts_of_a_job_take_two_places() -> None:
    """A host that comes back may have both for a moment."""
    (view,) = host_views([host()], {"h": sign("a-1")}, {"h": [OnHost("a-1", 2, "acme", "web")]}, NOW, lambda *_: True)
    assert (view.running, view.free, view.jobs) == (2, 2, ("a-1",))
