"""When activity is said: at once, then thinned out, and the last of it is never lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import ACTIVITY_INTERVAL, CPU_COUNTS_LEAST, CPU_COUNTS_SHARE, OUTPUT_COUNTS_AFTER_KEY
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


def test_a_channel_that_is_opened_counts_and_what_it_prints_does_not() -> None:
    activity = Activity(900)
    activity.opened(10)
    assert activity.due(10) == 0
    assert activity.say(10) == 10
    activity.output(11)
    assert activity.due(100) is None


def test_a_compiler_is_at_work_and_a_table_that_draws_itself_again_is_not() -> None:
    """`top` redraws for six minutes without a key: neither its output nor its CPU keeps the session for ever."""
    activity = Activity(900)
    activity.key(0)
    activity.say(0)
    used = {"ssh-1": 0.02}
    for second in range(15, 360, 15):
        activity.output(second)
        used["ssh-1"] += 0.03
        activity.cpu(second, used)
    assert activity.say(360) == OUTPUT_COUNTS_AFTER_KEY
    used["ssh-1"] += 14
    activity.cpu(375, used)
    assert activity.say(375) == 375


_WINDOWS = st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 20), max_size=3), min_size=1, max_size=30)


@given(_WINDOWS, st.sampled_from([900.0, 20.0, 2.0]))
def test_only_a_window_with_much_cpu_is_activity(windows: list[dict[str, float]], limit: float) -> None:
    """`windows`: what each process uses in it; one that is missing has ended, one that is there again is another."""
    activity, now = Activity(limit), 1000.0
    total: dict[str, float] = {}
    activity.cpu(now, total)
    for spent in windows:
        now += activity.interval
        total = {id: total.get(id, 0.0) + seconds for id, seconds in spent.items()}
        activity.cpu(now, total)
        needed = max(CPU_COUNTS_LEAST, CPU_COUNTS_SHARE * activity.interval)
        if abs(sum(spent.values()) - needed) < 1e-6:
            return  # either way, in binary fractions
        if sum(spent.values()) > needed:
            assert activity.due(now) == 0 and activity.say(now) == now
        else:
            assert activity.due(now) is None


@given(_WINDOWS)
def test_counters_that_fall_are_no_activity(windows: list[dict[str, float]]) -> None:
    activity = Activity(900)
    activity.cpu(0, {"a": 1e6, "b": 1e6, "c": 1e6})
    assert activity.say(0) == 0
    lowest = {"a": 1e6, "b": 1e6, "c": 1e6}
    for number, window in enumerate(windows, 1):
        lowest = {id: max(0.0, lowest[id] - window.get(id, 0.0)) for id in lowest}
        activity.cpu(number * 15, lowest)
        assert activity.due(number * 15) is None


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
