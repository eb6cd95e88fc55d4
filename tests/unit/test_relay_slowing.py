"""Failures of one address are answered later and later, and are forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitstop_relay.slowing import FORGET_EVERY, FREE, LONGEST, Slowing, network_of


def test_the_first_cost_nothing_and_then_each_costs_more() -> None:
    slowing = Slowing()
    waits = [slowing.failed("192.0.2.1", 0.0) for _ in range(int(FREE) + 12)]
    assert waits[: int(FREE)] == [0.0] * int(FREE)
    assert waits[int(FREE)] > 0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    assert slowing.failed("192.0.2.2", 0.0) == 0, "another address is not slowed"
    assert slowing.failed("192.0.2.1", FORGET_EVERY * 100) == 0, "they are forgotten"


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 50)), max_size=200))
def test_memory_and_delays_are_bounded(story: list[tuple[int, float]]) -> None:
    slowing, now = Slowing(addresses=8), 0.0
    for address, later in story:
        now += later
        assert 0 <= slowing.failed(f"192.0.2.{address}", now) <= LONGEST
        assert len(slowing) <= 8


@given(st.lists(st.floats(-100, 100), max_size=60))
def test_a_clock_that_goes_back_forgets_nothing(steps: list[float]) -> None:
    slowing, now = Slowing(), 1000.0
    for step in steps:
        now += step
        assert 0 <= slowing.failed("192.0.2.1", now) <= LONGEST


def test_what_counts_as_one_source() -> None:
    assert network_of("2001:db8:0:1::1") == network_of("2001:db8:0:1:ffff::2")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8:0:2::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert len(network_of("x" * 1000)) == 64
