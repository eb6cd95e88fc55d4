"""What is kept ready for jobs to come: never too old, never too many, and the most wanted first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.backends.docker.stock import Ready, Wanted, missing, next_look, parse, stale

NAMES = st.sampled_from(["", "a", "b:1"])
WANTED = st.builds(
    lambda images, age: Wanted(images=images, age=age),
    st.dictionaries(NAMES, st.integers(0, 4)),
    st.floats(0.1, 100),
)
READY = st.lists(st.builds(Ready, NAMES, st.floats(0, 200)), max_size=12)


@given(WANTED, READY, st.floats(200, 300))
def test_ending_and_making_comes_to_what_is_wanted(wanted: Wanted, ready: list[Ready], now: float) -> None:
    out = stale(wanted, list(enumerate(ready)), now)
    assert len(out) == len(set(out))
    left = [one for number, one in enumerate(ready) if number not in out]
    assert all(now - one.since < wanted.age for one in left)
    ended_young = [ready[number] for number in out if now - ready[number].since < wanted.age]
    for one in ended_young:
        assert all(one.since <= other.since for other in left if other.image == one.image), "a younger one was ended"
    made = 0
    while (name := missing(wanted, left, ())) is not None:
        left.append(Ready(name, now))
        made += 1
    assert {name: sum(one.image == name for one in left) for name in wanted.images} == dict(wanted.images)
    assert stale(wanted, list(enumerate(left)), now) == []
    assert made <= sum(wanted.images.values())
    assert 0 <= next_look(wanted, left, now, 60) <= 60


@given(WANTED, READY, NAMES)
def test_what_cannot_be_made_now_keeps_nothing_else_from_being_made(
    wanted: Wanted, ready: list[Ready], name: str
) -> None:
    found = missing(wanted, ready, [name])
    assert found != name
    rest = {each: count for each, count in wanted.images.items() if each != name}
    assert found == missing(Wanted(images=rest, age=wanted.age), ready, ())


def test_the_settings_words() -> None:
    assert parse(["2", "host:5000/a@sha256:1=3", "b=0"]) == {"": 2, "host:5000/a@sha256:1": 3, "b": 0}
    for word in ("a", "a=", "=2", "a=-1", "a=1001", "-1", "٣"):
        with pytest.raises(ValueError, match="IMAGE=N"):
            parse([word])
