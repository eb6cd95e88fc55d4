"""An honest log proves itself; tampered with in any way, it is told what is wrong and in which record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.honest_log import LOG, Log

from pitstop_scheduler import changes as c
from pitstop_scheduler.proof import Checker


def proved(log: Log) -> Checker:
    checker = Checker()
    for sequence, record in enumerate(log, 1):
        checker.take(sequence, record)
    checker.sums()
    return checker


def where(kind: type[Any], job: str = "", run: str = "") -> tuple[int, int]:
    """The record and the place in it of the first such change."""
    for at, record in enumerate(LOG):
        for place, change in enumerate(record.changes):
            if isinstance(change, kind) and job in {"", getattr(change, "job", "")} and (
                run in {"", getattr(change, "run", "")}
            ):  # fmt: skip
                return at, place
    raise AssertionError(f"the honest log has no {kind.__name__} of {job or run}")


def with_changes(at: int, make: Callable[[tuple[c.AnyChange, ...]], tuple[c.AnyChange, ...]]) -> Log:
    log = list(LOG)
    log[at] = msgspec.structs.replace(log[at], changes=make(log[at].changes))
    return log


def without(kind: type[Any], **about: str) -> tuple[Log, int]:
    at, place = where(kind, **about)
    return with_changes(at, lambda changes: changes[:place] + changes[place + 1 :]), at + 1


def again(kind: type[Any], later: int = 1, **about: str) -> tuple[Log, int]:
    """The same change once more, some records later."""
    at, place = where(kind, **about)
    change = LOG[at].changes[place]
    return with_changes(at + later, lambda changes: (*changes, change)), at + 1 + later


def added(after: int, *changes: c.AnyChange) -> tuple[Log, int]:
    return with_changes(after, lambda known: (*known, *changes)), after + 1


def last() -> int:
    return len(LOG) - 1


def grant(job: str, attempt: int = 1) -> c.Granted:
    return c.Granted(job, attempt, True, 0.0)


def swapped() -> tuple[Log, int]:
    log = list(LOG)
    log[6], log[7] = log[7], log[6]
    return log, 7


def changed(at: int, **fields: Any) -> tuple[Log, int]:
    log = list(LOG)
    log[at] = msgspec.structs.replace(log[at], **fields)
    return log, at + 1


TAMPERED: dict[str, tuple[Callable[[], tuple[Log, int]], str]] = {
    "a grant above the limit of the org": (lambda: added(where(c.Granted, job="r1-2")[0] + 1, grant("r2-1")),
                                           "org acme holds 3 slots with job r2-1; its limit is 2"),
    "a grant above the limit of the project": (
        lambda: (with_changes(where(c.Limits)[0], lambda _: (c.Limits("acme", 9, 1, {"web": 1}, 0.0, 0.0),)),
                 where(c.Granted, job="r1-2")[0] + 1), "project acme/web holds 2 slots"),
    "a grant above the limit of the pool": (
        lambda: added(where(c.Granted, job="r4-1")[0] + 1, c.Limits("acme", 9, 1, {"web": 9}, 0.0, 0.0),
                      grant("r2-1")), "pool default holds 4 slots with job r2-1; its limit is 3"),
    "a grant above the limit of the pool that was configured": (
        lambda: (with_changes(where(c.Limits)[0], lambda changes: (*changes, c.PoolLimit("default", 2))),
                 where(c.Granted, job="r4-1")[0] + 1), "pool default holds 3 slots with job r4-1; its limit is 2"),
    "a grant without a place on a host": (
        lambda: (with_changes(where(c.Room)[0], lambda _: (c.Room("h1", "1", "default", 2, 1),)),
                 where(c.Granted, job="r4-1")[0] + 1), "3 jobs are on hosts of pool default with job r4-1; 2 places"),
    "a job granted twice": (lambda: again(c.Granted, job="r1-1"), "job r1-1 attempt 1 is granted a second time"),
    "a grant of nobody": (lambda: added(last(), grant("r99-1")), "Granted of r99-1 cannot be folded"),
    "a slot given back twice": (lambda: again(c.Stopped, job="r4-1"),
                                "job r4-1 gives back a slot that it does not hold: it is "),
    "a job ended twice": (lambda: again(c.Ended, job="r1-1"), "job r1-1 ends a second time, and gives its slot back"),
    "a slot never given back": (lambda: (without(c.Ended, job="r1-2")[0], where(c.RunEnded, run="r1")[0] + 1),
                                "run r1 ends before its jobs: r1-2"),
    "a run ended twice": (lambda: again(c.RunEnded, later=0, run="r1"), "run r1 ends a second time"),
    "a run never ended": (lambda: without(c.RunEnded, run="r1"), "the last job of run r1 ends, and the run does not"),
    "a run queued twice": (lambda: again(c.Queued, run="r1"), "run r1 is queued a second time"),
    "another host in the same attempt": (
        lambda: added(where(c.Ready, job="r1-1")[0], c.Claimed("r1-1", 1, "h2", "1")),
        "job r1-1 goes from host h1 to h2 in one attempt"),
    "an end of another attempt": (
        lambda: (with_changes(where(c.Ended, job="r1-1")[0], lambda changes: tuple(
            msgspec.structs.replace(one, attempt=2) if isinstance(one, c.Ended) else one for one in changes)),
            where(c.Ended, job="r1-1")[0] + 1), "Ended of r1-1 is about attempt 2; it is at 1"),
    "a record taken out": (lambda: ([*LOG[:6], *LOG[7:]], 7), "comes after record 7, the one before it here is 6"),
    "two records in the wrong order": (swapped, "comes after record 7, the one before it here is 6"),
    "a watermark that goes back": (lambda: changed(9, watermark=1), "goes back"),
    "an epoch that goes back": (lambda: changed(9, epoch=0), "goes back"),
}  # fmt: skip


def test_an_honest_log_is_proved() -> None:
    checker = proved(LOG)
    assert checker.wrong == []
    assert len(checker.granted) >= 4 and {"r1", "r4"} <= checker.ended


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_told_with_its_place(name: str) -> None:
    make, said = TAMPERED[name]
    log, record = make()
    wrong = proved(log).wrong
    assert any(said in one for one in wrong), wrong
    assert wrong[0].startswith(f"record {record}: "), (record, wrong)


@pytest.mark.parametrize(("given", "allowed"), [((2, 1), 3), ((3, 1), 3), ((1, 4), 3), ((2, 3), 0)])
def test_more_places_lent_than_the_limit_of_a_pool_allows_are_told(given: tuple[int, int], allowed: int) -> None:
    limits = (c.Room("h", "1", "big", 4, 1), c.PoolLimit("big", allowed))
    loans = tuple(c.Leased("big", number, places, places, False, 1, allowed) for number, places in enumerate(given))
    checker = Checker()
    for sequence, changes in enumerate(((c.Defaults(0, 0, 0, 1, 3), *limits), loans), 1):
        checker.take(sequence, c.Record(1, sequence, "me", 0, 0.0, 0, changes, sequence - 1))
    lent, most = sum(given), allowed or 4
    told = f"{lent} places of pool big are lent with {given[1]} to partition 1; its hosts and its limit allow {most}"
    assert [one for one in checker.wrong if "are lent" in one] == [f"record 2: {told}"] * (lent > most)


def test_a_counter_that_does_not_agree_with_its_jobs_is_told() -> None:
    for spoil, said in (
        (lambda state: setattr(state.orgs["acme"], "used", 7), "org acme counts 7 slots in use"),
        (lambda state: setattr(state.pools["default"], "room", 9), "pool default counts 9 places in use"),
        (lambda state: setattr(state.pools["default"], "slots", 5), "pool default counts 5 slots in use"),
        (lambda state: state.orgs["acme"].used_by_project.update(web=4), "project acme/web counts 4 slots in use"),
    ):
        checker = proved(LOG)
        spoil(checker.state)
        checker.sums()
        assert any(said in one for one in checker.wrong), checker.wrong
