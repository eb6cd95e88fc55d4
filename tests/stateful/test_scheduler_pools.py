"""A pool shared by several partitions, with facts that come twice, late and in another order: never more jobs on the
hosts than they have places, or than a limit allows once all know it; no place in two hands; nobody waits for ever."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pitstop_common import messages as m
from pitstop_common.subjects import parse_fact, partition_of
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.effects import Publish, effects
from pitstop_scheduler.fold import fold
from pitstop_scheduler.grants import reason_to_wait
from pitstop_scheduler.model import State
from pitstop_scheduler.proof import Checker
from pitstop_scheduler.rooms import fair_shares, sharer
from pitstop_scheduler.snapshot import differences, frames, freeze, restore
from pitstop_scheduler.tick import Stored

PARTITIONS = 3
POOL = "default"


class Desk:
    """One partition."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state, self.checker = State(), Checker()
        self.sequence = self.head = self.runs = 0
        self.inbox: list[m.Fact] = []
        self.old: list[m.Fact] = []
        self.commit((c.Defaults(0, 0, 0, number, PARTITIONS),), 0, 0.0)

    def commit(self, changes: tuple[c.AnyChange, ...], watermark: int, now: float) -> list[tuple[int, m.Fact]]:
        """What it says to other partitions."""
        self.head += 1
        record = c.Record(1, self.head, "me", watermark, now, self.head - 1, changes, self.head - 1)
        record = c.decode_record(c.encode_record(record))
        self.checker.take(self.head, record)
        fold(self.state, record, self.head)
        said = [one for one in effects(self.state, record, self.head, self.number) if isinstance(one, Publish)]
        facts = [one for one in said if one.subject.startswith("pool.")]
        return [(partition_of(one.subject.split(".")[2], PARTITIONS), m.decode_fact(one.data)) for one in facts]

    def tick(self, facts: list[m.Fact]) -> list[tuple[int, m.Fact]]:
        stored = []
        for fact in facts:
            self.sequence += 1
            stored.append(Stored(self.sequence, float(self.sequence), fact))
        before = fingerprint(self.state)
        decision = decide(self.state, stored, self.state.now)
        assert fingerprint(self.state) == before
        self.old += facts
        return self.commit(decision.changes, decision.watermark, decision.now)


class Pool(RuleBasedStateMachine):
    """Orgs of three partitions, hosts of one pool with a limit that changes, and the messages between them."""

    @initialize(capacity=st.integers(0, 7))
    def begin(self, capacity: int) -> None:
        self.desks = [Desk(number) for number in range(PARTITIONS)]
        self.rooms = self.held = 0
        self.told: dict[int, int] = {}
        self.room(capacity)

    @rule(capacity=st.integers(0, 7))
    def room(self, capacity: int) -> None:
        self.rooms += 1
        for desk in self.desks:
            desk.inbox.append(m.SandboxRoom(id="r", time="", org="_", run="_", host="h", incarnation="1", pool=POOL,
                                            capacity=capacity, serial=self.rooms))  # fmt: skip
        self.capacity = capacity
        for desk in self.desks:  # it is heard of everywhere before anything else
            self.tick(desk, everything=True)

    @rule(slots=st.none() | st.integers(0, 7))
    def limit(self, slots: int | None) -> None:
        self.sharer().inbox.append(m.PoolConfigured(id="l", time="", org="_", run="_", pool=POOL, slots=slots))

    def sharer(self) -> Desk:
        return self.desks[sharer(POOL, PARTITIONS)]

    def allowed(self) -> int:
        """Places that may be lent, as it was decided."""
        return min(self.capacity, self.sharer().state.pool(POOL).limit or self.capacity)

    def heard(self) -> bool:
        """All have been told of the limit that was decided on last."""
        return all(self.desks[number].state.pool(POOL).heard >= serial for number, serial in self.told.items())

    @rule(number=st.integers(0, PARTITIONS - 1), count=st.integers(1, 9))
    def request(self, number: int, count: int) -> None:
        desk = self.desks[number]
        for _ in range(count):
            desk.runs += 1
            run = f"p{number}r{desk.runs}"
            desk.inbox.append(m.RunAccepted(id=run, time="", org=f"o{number}", run=run, project="web", source=run,
                                            jobs=(m.AcceptedJob(job=f"{run}-1", key="k", pool=POOL),)))  # fmt: skip

    @rule(number=st.integers(0, PARTITIONS - 1), count=st.integers(1, 3))
    def finish(self, number: int, count: int) -> None:
        desk = self.desks[number]
        granted = [job for job in desk.state.jobs.values() if job.status == "starting"]
        for job in granted[:count]:
            desk.inbox.append(m.RunCancel(id=f"c{job.id}", time="", org=f"o{number}", run=job.run))

    @rule(number=st.integers(0, PARTITIONS - 1), order=st.randoms(use_true_random=False))
    def tick_some(self, number: int, order: object) -> None:
        desk = self.desks[number]
        order.shuffle(desk.inbox)  # type: ignore[attr-defined]
        self.tick(desk, everything=False)

    @precondition(lambda self: any(desk.old for desk in self.desks))
    @rule(data=st.data(), number=st.integers(0, PARTITIONS - 1))
    def again(self, data: st.DataObject, number: int) -> None:
        desk = self.desks[number]
        pools = [fact for fact in desk.old if isinstance(fact, m.PoolAsked | m.PoolShared)]
        if pools:
            desk.inbox.append(data.draw(st.sampled_from(pools)))

    def tick(self, desk: Desk, *, everything: bool) -> None:
        count = len(desk.inbox) if everything else (len(desk.inbox) + 1) // 2
        taken, desk.inbox = desk.inbox[:count], desk.inbox[count:]
        heard, limit, grants = self.heard(), self.sharer().state.pool(POOL).limit, len(desk.checker.granted)
        for number, fact in desk.tick(taken):
            self.desks[number].inbox.append(fact)
        pool = self.sharer().state.pool(POOL)
        if pool.limit != limit:
            self.told = {number: lease.serial for number, lease in pool.leases.items() if lease.serial}
        elif heard and limit and len(desk.checker.granted) > grants:
            assert self.running() <= limit, "a grant takes the pool above its limit"

    def running(self) -> int:
        return sum(desk.state.pool(POOL).room for desk in self.desks)

    @invariant()
    def never_more_than_there_are_places(self) -> None:
        if not hasattr(self, "desks"):
            return
        leases = self.desks[sharer(POOL, PARTITIONS)].state.pool(POOL).leases
        held = sum(lease.held for lease in leases.values())
        assert held <= max(self.held, self.allowed()), "more is given than there may be"
        assert self.running() <= held
        self.held = held
        for desk in self.desks:
            assert desk.checker.wrong == []
            pool = desk.state.pool(POOL)
            lease = leases.get(desk.number)
            assert pool.room <= max(pool.share, 0)
            assert pool.share <= (lease.held if lease else 0), "a place is in two hands"

    def teardown(self) -> None:
        """Everything that waits gets its turn, one job after the other."""
        if not hasattr(self, "desks"):
            return
        self.limit(1)
        self.room(2)
        waiting = {job.id for desk in self.desks for job in desk.state.jobs.values()}
        for _ in range(20 * (len(waiting) + 5)):
            for desk in self.desks:
                self.tick(desk, everything=True)
            if not any(desk.inbox for desk in self.desks):
                if not any(desk.state.queues or desk.state.pool(POOL).room for desk in self.desks):
                    break
                assert self.running() > 0, "places are free, jobs wait, and nothing moves"
                self.finish(min(range(PARTITIONS), key=lambda n: -self.desks[n].state.pool(POOL).room), 1)
        assert not any(desk.state.queues for desk in self.desks), "somebody waits for ever"


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))


def fingerprint(state: State) -> bytes:
    """All of it, as a snapshot has it; and that one is the same state again."""
    try:
        data = b"".join(frames(freeze(state)))
    finally:
        state.unpin()
    assert differences(state, list(restore(data))[-1]) == []
    return data


def settle(desks: list[Desk]) -> None:
    for _ in range(100):
        for desk in desks:
            taken, desk.inbox = desk.inbox, []
            for number, fact in desk.tick(taken):
                desks[number].inbox.append(fact)
        if not any(desk.inbox for desk in desks):
            return
    raise AssertionError("they talk for ever")


def test_the_only_place_goes_round() -> None:
    """A partition with a queue that never ends does not keep it from the others."""
    pool = Pool()
    pool.begin(1)
    for number in range(PARTITIONS):
        pool.request(number, 6)
    settle(pool.desks)
    turns = []
    for _ in range(9):
        assert pool.running() == 1
        number = next(desk.number for desk in pool.desks if desk.state.pool(POOL).room)
        turns.append(number)
        pool.finish(number, 1)
        settle(pool.desks)
    assert sorted(turns[:3]) == sorted(turns[3:6]) == sorted(turns[6:9]) == [0, 1, 2]


def test_idle_places_stay_and_come_back_when_others_want_them() -> None:
    pool = Pool()
    pool.begin(6)
    pool.request(0, 6)
    settle(pool.desks)
    assert pool.desks[0].state.pool(POOL).room == 6
    pool.finish(0, 3)
    pool.finish(0, 3)
    settle(pool.desks)
    share = pool.desks[0].state.pool(POOL).share
    assert share == 6 - 0 and pool.running() <= 3
    pool.request(1, 9)
    settle(pool.desks)
    assert pool.running() == 6
    assert pool.desks[1].state.pool(POOL).room >= 3


@given(st.integers(0, 50), st.dictionaries(st.integers(0, 15), st.integers(0, 20)), st.integers(0, 15))
def test_fair_shares_are_fair(total: int, wants: dict[int, int], turn: int) -> None:
    shares = fair_shares(total, wants, turn, 16)
    assert sum(shares.values()) == min(total, sum(wants.values()))
    for one in wants:
        assert shares[one] <= wants[one]
        if shares[one] < wants[one]:
            assert all(shares[other] <= shares[one] + 1 for other in wants)


def test_the_token_of_a_fact_about_no_org_reads_as_none() -> None:
    assert parse_fact("in.3.pool.asked._24._").org == "_"


def test_a_lower_limit_ends_nothing_and_what_was_lent_but_is_empty_is_filled_no_more() -> None:
    pool = Pool()
    pool.begin(6)
    pool.request(0, 3)
    pool.request(1, 3)
    settle(pool.desks)
    pool.finish(1, 3)
    settle(pool.desks)
    assert (pool.desks[1].state.pool(POOL).share, pool.running()) == (3, 3), "three empty places stay where they are"
    pool.limit(2)
    settle(pool.desks)
    assert pool.running() == 3 and pool.heard()
    pool.request(1, 2)
    pool.request(2, 2)
    settle(pool.desks)
    assert pool.running() == 3, "a grant takes the pool above its limit"
    for left in (2, 2, 2, 2, 2, 1, 0):
        pool.finish(max(range(PARTITIONS), key=lambda n: pool.desks[n].state.pool(POOL).room), 1)
        settle(pool.desks)
        assert pool.running() == left
    assert not any(desk.state.queues for desk in pool.desks)


def test_a_higher_limit_is_used_at_once() -> None:
    pool = Pool()
    pool.begin(6)
    pool.limit(1)
    for number in range(PARTITIONS):
        pool.request(number, 2)
    settle(pool.desks)
    assert pool.running() == 1
    waits = next(job for job in pool.desks[0].state.jobs.values() if job.status == "queued")
    assert "of pool default" in reason_to_wait(pool.desks[0].state, waits)
    for limit, running in ((4, 4), (None, 6)):
        pool.limit(limit)
        settle(pool.desks)
        assert pool.running() == running
