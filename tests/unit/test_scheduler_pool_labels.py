"""Which pool `runs-on` means, and what is said when there is none."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.spec import JobSpec
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import apply
from pitstop_scheduler.host import Host
from pitstop_scheduler.model import State
from pitstop_scheduler.placing import Placing
from pitstop_scheduler.pool_labels import Offer, choose, labels_of_pools, read_aliases, refusal
from pitstop_scheduler.request import BadRequest, Request
from pitstop_scheduler.request_rules import STEPS_JOB

ALIASES = read_aliases(("ubuntu-*=default", "depot-ubuntu-*=default"))
EVERY = ("linux", "self-hosted", "x64")


def host(name: str, pool: str, *labels: str, room: int = 4) -> Host:
    return Host(name, "1", pool, room, 1, (*EVERY, *labels))


def offer(pool: str, *labels: str, hosts: int = 1, load: float = 0.0) -> Offer:
    return Offer(pool, frozenset({*EVERY, *labels}), hosts, load)


PLAIN, BIG, GPU = offer("default"), offer("big", "big"), offer("gpu", "big", "gpu")


@pytest.mark.parametrize(
    ("runs_on", "pool"),
    [
        (("ubuntu-latest",), "default"), (("ubuntu-24.04",), "default"), (("depot-ubuntu-latest",), "default"),
        (("self-hosted", "linux"), "default"), (("default",), "default"), (("gpu",), "gpu"),
        (("self-hosted", "linux", "big"), "big"), (("big", "gpu"), "gpu"), (("big", "big"), "big"),
        (("ubuntu-latest", "gpu"), None), (("arm64",), None), (("ubuntu",), None),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_found(runs_on: tuple[str, ...], pool: str | None) -> None:
    assert choose(runs_on, [GPU, BIG, PLAIN], ALIASES) == pool


def test_of_several_the_one_that_can_and_the_plainest_and_the_idlest_and_the_first() -> None:
    down = PLAIN._replace(hosts=0)
    assert choose(("linux",), [down, BIG, GPU], ALIASES) == "big"
    assert choose(("linux",), [down], ALIASES) == "default"
    assert choose(("big",), [offer("b", "big", load=0.5), offer("a", "big", load=0.75)], ALIASES) == "b"
    assert choose(("big",), [offer("b", "big"), offer("a", "big")], ALIASES) == "a"


labels = st.lists(st.sampled_from("abcd"), max_size=4).map(tuple)


@given(st.lists(st.tuples(labels, st.booleans()), max_size=5), labels)
def test_a_pool_is_found_if_and_only_if_one_has_them_all(pools: list[Any], runs_on: tuple[str, ...]) -> None:
    offers = [Offer(f"p{number}", frozenset(has), int(up), 0.0) for number, (has, up) in enumerate(pools)]
    found = choose(runs_on, offers, ())
    fit = {one.pool: one for one in offers if set(runs_on) <= one.labels}
    assert (found in fit) if fit else (found is None)
    assert found is None or fit[found].hosts or not any(one.hosts for one in fit.values())
    if found is None:
        told = refusal(runs_on, offers, ())
        assert all(one.pool in told for one in offers)


def test_a_pool_has_what_all_its_hosts_have() -> None:
    found = labels_of_pools([host("a", "p", "big", "ssd"), host("b", "p", "big"), host("c", "p", room=0),
                             host("d", "q", "x", room=0)])  # fmt: skip
    assert found["p"] == (frozenset({*EVERY, "big"}), 2)
    assert found["q"] == (frozenset({*EVERY, "x"}), 0)
    assert found["default"][1] == 0


def test_a_refusal_says_what_there_is() -> None:
    told = refusal(("self-hosted", "bgi"), [PLAIN, BIG._replace(hosts=0)], ALIASES)
    assert "no sandbox host has the label 'bgi'; did you mean big?" in told
    assert "default (linux, self-hosted, x64; 1 host up); big (big, linux, self-hosted, x64; no host is up)" in told
    assert "ubuntu-* is default" in told
    assert "no pool has all of 'big', 'arm'" in refusal(("big", "arm"), [BIG, offer("a", "arm")], ())


@pytest.mark.parametrize("pair", ["ubuntu", "=default", "x=", "x=No Pool"])
def test_a_wrong_alias_is_named(pair: str) -> None:
    with pytest.raises(ValueError, match="not LABEL=POOL"):
        read_aliases((pair,))


def placing(state: State, now: list[float]) -> Placing:
    async def all_fresh() -> None:
        return None

    logs = cast(Any, [SimpleNamespace(state=state)])
    return Placing(logs, cast(Any, SimpleNamespace(all_fresh=all_fresh)), ALIASES, lambda: now[0])


def asking(*runs_on: str) -> Request:
    job = JobSpec(job="", key="build", name="build", steps=(), runs_on=runs_on)
    return Request(id="r", org="acme", project="web", actor="ada", jobs=(job,))


def test_requests_that_come_together_are_spread_by_places() -> None:
    """The log knows of none of them yet."""
    state, now = State(), [10.0]
    apply(state, c.Room("h1", "1", "one", 4, 1, ("big",)))
    apply(state, c.Room("h2", "1", "two", 8, 1, ("big",)))
    found = placing(state, now)

    async def burst() -> Counter[str]:
        return Counter([(await found.place(asking("big"))).jobs[0].pool for _ in range(60)])

    assert asyncio.run(burst()) == {"one": 20, "two": 40}
    now[0] += 1  # by now the log would show those that are left
    assert asyncio.run(burst()) == {"one": 20, "two": 40}


def in_container(*runs_on: str, pool: str = "default", key: str = "build") -> Request:
    job = JobSpec(job="", key=key, name="build", steps=(), runs_on=runs_on, pool=pool, image="debian:12")
    return Request(id="r", org="acme", project="web", actor="ada", jobs=(job,))


def test_a_job_with_an_image_goes_where_containers_are() -> None:
    state, now = State(), [10.0]

    def placed(request: Request) -> str:
        return asyncio.run(placing(state, now).place(request)).jobs[0].pool

    assert placed(in_container()) == "default", "nobody knows yet what its hosts will be"
    apply(state, c.Room("h1", "1", "default", 4, 1, (*EVERY, "namespaces")))
    with pytest.raises(BadRequest, match="no sandbox host has the label 'docker'"):
        placed(in_container())
    apply(state, c.Room("h2", "1", "boxes", 4, 1, (*EVERY, "docker")))
    assert (placed(in_container()), placed(in_container("self-hosted"))) == ("boxes", "boxes")
    apply(state, c.Room("h3", "1", "default", 4, 1, (*EVERY, "docker")))
    apply(state, c.Room("h1", "1", "default", 0, 2, (*EVERY, "namespaces")))
    assert placed(in_container()) == "default"
    apply(state, c.Room("h4", "1", "bare", 4, 1, (*EVERY, "namespaces")))
    for request, pointer in (
        (in_container(pool="bare", key=STEPS_JOB), "/image"),
        (in_container(pool="bare"), "/workflow/jobs/build/container"),
        (in_container("bare"), "/workflow/jobs/build/runs-on"),
    ):
        with pytest.raises(BadRequest) as caught:
            placed(request)
        (fault,) = caught.value.faults
        assert (fault.pointer, "no pool has all of 'bare', 'docker'" in fault.message) == (pointer, True)


def test_a_refusal_points_to_the_job() -> None:
    with pytest.raises(BadRequest) as caught:
        asyncio.run(placing(State(), [1.0]).place(asking("gpu")))
    (fault,) = caught.value.faults
    assert (
        fault.pointer == "/workflow/jobs/build/runs-on"
        and "default (linux, self-hosted; no host is up)" in fault.message
    )
    assert asyncio.run(placing(State(), [1.0]).place(asking("ubuntu-latest"))).jobs[0].pool == "default"
