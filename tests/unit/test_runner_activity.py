"""When activity is said: at once, then thinned out, and the last of it is never lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import ACTIVITY_INTERVAL, OUTPUT_COUNTS_AFTER_KEY
from pitstop_sandbox.activity import Activity


def test_the_first_key_is_said_at_once_and_the_next_waits() -> None:
    activity = Activity(900)
    activity.key(100)
    assert activity.due(100) == 0
    assert activity.say(100) == 100
    assert activity.due(101) is None
    activity.key(101)
    assert activity.due(101) == ACTIVITY_INTERVAL - 1


def test_a_short_idle_limit_is_said_four_times_as_often() -> None:
    assert Activity(4).interval == 1


def test_output_counts_only_for_a_while_after_a_key() -> None:
    activity = Activity(900)
    activity.output(10)
    assert activity.due(10) is None
    activity.key(20)
    activity.say(20)
    activity.output(20 + OUTPUT_COUNTS_AFTER_KEY)
    assert activity.due(20 + OUTPUT_COUNTS_AFTER_KEY) == 0
    activity.say(20 + OUTPUT_COUNTS_AFTER_KEY)
    activity.output(21 + OUTPUT_COUNTS_AFTER_KEY)
    assert activity.due(400) is None


def test_whatever_is_done_after_a_warning_is_said_at_once() -> None:
    activity = Activity(900)
    activity.key(100)
    activity.say(100)
    activity.key(101)
    activity.warned(102)
    assert activity.due(102) == 0
    assert activity.say(102) == 101
    assert activity.due(102) is None
    activity.key(103)
    assert activity.due(103) == 0
    activity.say(103)
    activity.key(104)
    assert activity.due(104) == ACTIVITY_INTERVAL - 1


def test_a_screen_that_is_drawn_again_for_the_warning_is_nobody_at_work() -> None:
    activity = Activity(900)
    activity.key(100)
    activity.say(100)
    activity.warned(200)
    activity.output(203)
    assert activity.due(203) is None
    activity.key(204)
    assert activity.due(204) == 0
    activity.say(204)
    activity.output(220)
    assert activity.due(220) == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60))
def test_every_activity_is_said_within_an_interval(steps: list[tuple[float, bool]]) -> None:
    activity, now, last = Activity(900), 1000.0, None
    said: list[float] = []
    for pause, typed in steps:
        now += pause
        while (due := activity.due(now - pause)) is not None and due <= pause:
            said.append(activity.say(now - pause + due))
        if typed:
            activity.key(now)
            last = now
    if last is not None:
        due = activity.due(now)
        assert said[-1:] == [last] if due is None else due <= activity.interval
