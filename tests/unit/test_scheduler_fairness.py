"""Orgs share by weight (row D2): the bounds that `turns` promises, for all small cases and for chosen larger ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_scheduler_grants import Desk, asked, configured, room

from pitstop_common import messages as m
from pitstop_scheduler.decide import decide
from pitstop_scheduler.snapshot import frames, freeze, restore
from pitstop_scheduler.tick import Stored

ORGS = ("a", "b", "c", "d")


class Floor:
    """Orgs that ask for jobs, a pool that grows, and what each had while it waited."""

    def __init__(self, weights: tuple[int, ...]) -> None:
        self.desk = Desk()
        self.weights = dict(zip(ORGS, weights, strict=False))
        self.desk.tell(*(configured(org, 0, weight) for org, weight in self.weights.items()))
        self.asked, self.had = Counter[str](), Counter[str]()
        self.places = 0
        self.leads: dict[tuple[str, str], list[Fraction]] = {}
        """By how much one was ahead of another, in jobs of weight 1, while both waited without a break."""

    def ask(self, org: str, jobs: int) -> None:
        first, self.asked[org] = self.asked[org], self.asked[org] + jobs
        self._took(self.desk.grants(*(asked(f"{org}{n}", org=org) for n in range(first, first + jobs))))

    def grow(self, places: int) -> list[str]:
        self.places += places
        return self._took(self.desk.grants(room(self.places, serial=1 + self.places)))

    def _took(self, granted: list[str]) -> list[str]:
        for job in granted:
            both = {pair for pair in combinations(self.weights, 2) if all(map(self._waits, pair))}
            self.leads = {pair: self.leads.get(pair) or [self._lead(*pair)] for pair in both}
            self.had[job.rstrip("-0123456789")] += 1
            for pair, leads in self.leads.items():
                leads.append(self._lead(*pair))
                most = Fraction(1, self.weights[pair[0]]) + Fraction(1, self.weights[pair[1]])
                assert max(leads) - min(leads) <= most, f"{pair} of {self.weights}: {leads}"
        return granted

    def _waits(self, org: str) -> bool:
        return self.asked[org] > self.had[org]

    def _lead(self, one: str, other: str) -> Fraction:
        return Fraction(self.had[one], self.weights[one]) - Fraction(self.had[other], self.weights[other])


def later(floor: Floor) -> Floor:
    """Others have had the pool for themselves, until all turns have passed. Sums of turns are not round."""
    floor.desk.tell(configured("others", 0, 7))
    floor.ask("others", 20)
    floor.grow(20)
    return floor


def begin_together(floor: Floor, jobs: int) -> list[Counter[str]]:
    """All of them ask, then one place at a time: nobody is ahead of anybody by more than one job of its own. What they
    had after each."""
    for org in floor.weights:
        floor.ask(org, jobs)
    before, shares = floor.had.copy(), []
    for _ in range(jobs):
        floor.grow(1)
        shares.append(floor.had - before)
        had = {org: Fraction(shares[-1][org], weight) for org, weight in floor.weights.items()}
        assert all((had[org] - min(had.values())) * weight <= 1 for org, weight in floor.weights.items())
    return shares


@pytest.mark.parametrize("orgs", [2, 3, 4])
def test_who_begins_to_wait_together_shares_by_weight_all_the_time(orgs: int) -> None:
    """All weights from 1 to 5 in every order of names, for two whole rounds. With ties by name alone, the last of
    [1, 1, 1, 4] had 4 of 10; its exact part is 5.7."""
    for weights in product(range(1, 6), repeat=orgs):
        whole = sum(weights)
        shares = begin_together(later(Floor(weights)), 2 * whole)
        assert shares[whole - 1] == dict(zip(ORGS, weights, strict=False))
        for places, share in enumerate(shares, start=1):
            for org, weight in zip(ORGS, weights, strict=False):
                assert abs(share[org] - Fraction(places * weight, whole)) <= Fraction(3, 2)


@given(weights=st.tuples(*4 * [st.integers(1, 1000)]), past=st.lists(st.sampled_from(ORGS), max_size=12))
def test_they_do_so_after_any_past_and_for_any_weights(weights: tuple[int, ...], past: list[str]) -> None:
    floor = Floor(weights)
    for org in past:
        floor.ask(org, 1)
        floor.grow(1)
    begin_together(later(floor), 20)


@pytest.mark.parametrize("weights", [*product((1, 2, 5), repeat=2), (1, 2, 5), (5, 1, 1)])
def test_between_any_two_moments_orgs_that_wait_share_by_weight(weights: tuple[int, ...]) -> None:
    """Whoever comes when, and however places come: all histories of so many events. `Floor` compares each pair."""
    orgs = ORGS[: len(weights)]
    for history in product((*orgs, ""), repeat=5 if len(weights) == 2 else 4):
        play(Floor(weights), history)


@given(weights=st.tuples(*4 * [st.integers(1, 20)]), history=st.lists(st.sampled_from((*ORGS, "")), max_size=60))
def test_that_holds_for_longer_histories_of_more_orgs(weights: tuple[int, ...], history: list[str]) -> None:
    play(Floor(weights), history)


def play(floor: Floor, history: Iterable[str]) -> None:
    """The orgs in it ask for jobs, and places come."""
    for event in history:
        if event:
            floor.ask(event, 3)
        else:
            floor.grow(2)
    while any(floor.asked[org] > floor.had[org] for org in floor.asked):
        floor.grow(1)


def test_an_org_that_becomes_heavier_while_it_waits_goes_first_at_once() -> None:
    desk = Desk()
    desk.tell(asked("a0", org="a"), asked("b0", org="b"))
    desk.tell(asked("a1", org="a"), asked("b1", org="b"), configured("b", 0, 2))
    assert desk.grants(room(1)) == ["b0-1"]


@given(st.lists(st.tuples(st.sampled_from(ORGS), st.sampled_from(("ask", "weigh", "grow")), st.integers(1, 4))))
def test_the_places_of_a_pool_lead_to_the_same_grants_as_a_look_at_all(events: list[tuple[str, str, int]]) -> None:
    """`turns` is kept along; what it is rebuilt to be, by a snapshot, grants the same."""
    desk = Desk()
    for number, (org, event, size) in enumerate(events, start=2):
        fact: m.Fact = configured(org, 0, size) if event == "weigh" else asked(f"r{number}", org=org)
        desk.tell(room(number * size, number) if event == "grow" else fact)
        *_, fresh = restore(b"".join(frames(freeze(desk.state))))
        more = [Stored(desk.sequence + 1, 1.0 * desk.sequence, room(1000, 1000))]
        assert decide(desk.state, more, 0.0).changes == decide(fresh, more, 0.0).changes
