"""Who is gone: what the janitor concludes from what it saw, without any clock but its own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop_common.messages import Heartbeat, JobStatus, JobView
from pitstop_janitor.decide import forget, inventory, ownerless, signs_of_life, unchanged_for, unheld, watch
from pitstop_janitor.model import HeldJob, Observation, Sighting

LOST = 120.0
GAP = 15.0


def beat(host: str = "h1", incarnation: str = "i1", count: int = 1, *jobs: tuple[str, int]) -> Heartbeat:
    return Heartbeat(host=host, incarnation=incarnation, pool="default", capacity=2, beat=count, jobs=jobs)


def look(before: Observation, now: float, *beats: Heartbeat, epoch: int = 0) -> Observation:
    found = signs_of_life({one.host: one for one in beats})
    return watch(before, found, now=now, epoch=epoch, max_gap=GAP)


def looks(times: range, *beats: Heartbeat, start: Observation | None = None, epoch: int = 0) -> Observation:
    observation = start or Observation()
    for now in times:
        observation = look(observation, now, *beats, epoch=epoch)
    return observation


def test_a_host_that_never_changes_is_lost_after_the_whole_time_and_not_before() -> None:
    silent = beat()
    assert unchanged_for(looks(range(0, 120, 5), silent), LOST) == {}
    assert set(unchanged_for(looks(range(0, 121, 5), silent), LOST)) == {"h1"}


def test_a_beat_starts_the_time_anew() -> None:
    observation = looks(range(0, 120, 5), beat(count=1))
    observation = looks(range(120, 240, 5), beat(count=2), start=observation)
    assert unchanged_for(observation, LOST) == {}
    assert unchanged_for(look(observation, 240, beat(count=2)), LOST)


def test_a_new_incarnation_is_a_new_life_even_with_the_same_count() -> None:
    observation = looks(range(0, 120, 5), beat(incarnation="i1"))
    assert unchanged_for(look(observation, 120, beat(incarnation="i2")), LOST) == {}


def test_a_reconnect_starts_every_observation_anew() -> None:
    observation = looks(range(0, 120, 5), beat(), epoch=0)
    observation = look(observation, 120, beat(), epoch=1)
    assert unchanged_for(observation, LOST) == {}
    assert observation.seen["h1"].since == 120


def test_a_janitor_that_did_not_look_for_a_while_concludes_nothing() -> None:
    observation = looks(range(0, 60, 5), beat())
    assert unchanged_for(look(observation, 60 + GAP + 1, beat()), 0.001) == {}
    assert unchanged_for(look(observation, 500, beat()), LOST) == {}


def test_a_clock_that_steps_back_concludes_nothing() -> None:
    observation = looks(range(1000, 1100, 5), beat())
    back = look(observation, 10, beat())
    assert (back.at, back.seen["h1"].since) == (10, 10)


def test_a_host_that_takes_its_key_away_is_forgotten() -> None:
    observation = look(looks(range(0, 60, 5), beat()), 60)
    assert observation.seen == {}


def test_what_was_dealt_with_is_observed_from_the_start() -> None:
    observation = looks(range(0, 121, 5), beat("h1"), beat("h2", count=7))
    rest = forget(observation, ["h1"])
    assert set(rest.seen) == {"h2"}
    assert unchanged_for(look(rest, 125, beat("h1"), beat("h2", count=7)), LOST) == {"h2": ("i1", 7)}


def test_one_silent_host_does_not_touch_another() -> None:
    observation = Observation()
    for count, now in enumerate(range(0, 121, 5)):
        observation = look(observation, now, beat("dead"), beat("living", count=count))
    assert unchanged_for(observation, LOST) == {"dead": ("i1", 1)}


STEPS = st.tuples(st.sampled_from([1.0, 5.0, 5.0, GAP, GAP, GAP + 1, -3.0]), st.sampled_from([0, 0, 0, 0, 1]))


@given(st.lists(STEPS, min_size=8, max_size=40))
@settings(max_examples=300)
def test_a_silent_host_is_lost_exactly_when_one_unbroken_stretch_is_long_enough(steps: list[tuple[float, int]]) -> None:
    observation, now, epoch, stretch = look(Observation(), 0, beat()), 0.0, 0, 0.0
    for step, reconnects in steps:
        now, epoch = now + step, epoch + reconnects
        stretch = stretch + step if 0 <= step <= GAP and not reconnects else 0.0
        observation = look(observation, now, beat(), epoch=epoch)
        assert bool(unchanged_for(observation, 30.0)) == (stretch >= 30.0)


JOB = HeldJob("acme", "r", "r-1", 2, "h1", "i1")


def test_a_job_of_a_host_without_a_heartbeat_is_held_by_nobody() -> None:
    assert unheld([JOB], {}) == {"r-1": (2, "h1", "i1")}
    assert unheld([JOB], {"h2": beat("h2")}) == {"r-1": (2, "h1", "i1")}


def test_the_incarnation_that_claimed_a_job_is_trusted_with_it() -> None:
    assert unheld([JOB], {"h1": beat("h1", "i1")}) == {}


def test_a_later_incarnation_holds_only_what_it_lists() -> None:
    assert unheld([JOB], {"h1": beat("h1", "i2", 1, ("r-1", 2))}) == {}
    assert unheld([JOB], {"h1": beat("h1", "i2", 1, ("r-1", 1))}) == {"r-1": (2, "h1", "i1")}
    assert unheld([JOB], {"h1": beat("h1", "i2")}) == {"r-1": (2, "h1", "i1")}


def test_an_observation_is_a_value() -> None:
    first = look(Observation(), 0, beat())
    look(first, 5, beat(count=2))
    assert first.seen == {"h1": Sighting(("i1", 1), 0)}


# -- inventories -------------------------------------------------------------------------------------------------------


def view(job: str, status: JobStatus, attempt: int) -> JobView:
    return JobView(job=job, run="r", org="acme", project="p", key="k", pool="default", status=status, attempt=attempt)


def wanted(held: int, status: JobStatus | None, attempt: int) -> bool:
    """Does a host that holds an attempt of a job do right, for what the read model says?"""
    jobs = {"j-1": view("j-1", status, attempt)} if status else {}
    return not ownerless(inventory([beat("h1", "i1", 1, ("j-1", held))]), jobs)


def test_an_attempt_is_wanted_while_its_job_is_open_and_no_later_one_has_taken_over() -> None:
    assert all(wanted(1, status, 1) for status in ("starting", "running", "paused"))
    assert wanted(2, "running", 1), "the read model trails"
    assert not wanted(1, "running", 2)
    assert not wanted(1, "stopping", 1), "its stop may be lost"
    assert not wanted(1, None, 0), "queued, finished, or unknown"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["j-1", "j-2"]), st.integers(1, 3)), unique=True))
def test_everything_is_told_apart_by_host_kind_and_key(things: list[tuple[str, str, int]]) -> None:
    beats = [
        Heartbeat(host=host, incarnation="i", pool="default", capacity=1, beat=1,
                  jobs=tuple((job, attempt) for of, job, attempt in things if of == host),
                  leftovers=tuple(("folder", f"{job}.{attempt}") for of, job, attempt in things if of == host))
        for host in "abc"
    ]  # fmt: skip
    held = inventory(beats)
    assert len(held) == 2 * len(things)
    assert set(ownerless(held, {})) == set(held)
    everything = {job: view(job, "running", 1) for job in ("j-1", "j-2")}
    assert {held[name].kind for name in ownerless(held, everything)} <= {"folder"}
