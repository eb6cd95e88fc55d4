"""The scheduler's rules under duplicate, late and foreign facts, limit changes and clock jumps.

A played world sends the facts that hosts, people and the janitor would send, each perhaps again, perhaps late. After
every tick the invariants of `verify` hold; and the same facts once more change nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pitstop_common import messages as m
from pitstop_common.limits import RETRIES
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.draft import Draft
from pitstop_scheduler.fold import fold
from pitstop_scheduler.forced import guests
from pitstop_scheduler.grants import reason_to_wait
from pitstop_scheduler.model import State
from pitstop_scheduler.proof import Checker
from pitstop_scheduler.tick import Stored

ORGS = ("acme", "beta")
HOSTS = ("h1", "h2")


class World(RuleBasedStateMachine):
    """Everybody around the scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.checker = Checker()
        self.log: list[tuple[c.Record, int]] = []
        self.sequence = self.head = self.runs = self.number = 0
        self.clock = 1000.0
        self.told: list[m.Fact] = []
        self.entered: set[str] = set()
        self.waited: set[str] = set()
        self.holds: dict[str, int] = {}
        self.uses: Counter[str] = Counter()
        self.serials: dict[tuple[str, int], int] = {}
        self.incarnations = dict.fromkeys(HOSTS, 1)
        self.words: dict[tuple[str, int], bool] = {}
        self.heard = dict.fromkeys(HOSTS, (False, 0))
        """What each host knows of the words on whether to take jobs: the newest, and its serial."""
        self.waiting: list[Stored] = []
        self.commit(c.Defaults(0, 0, 0))

    @initialize(count=st.integers(0, 4))
    def some_jobs_are_on_hosts(self, count: int) -> None:
        for host in HOSTS:
            self.room(host, 3)
        self.set_hold(ORGS[0], "", 1, 5000)
        for number in range(count):
            self.request(ORGS[number % 2], 1, 0, number % 2 == 0)
        self.tick()
        for job in self.jobs("starting"):
            self.report(job, HOSTS[0], m.JobClaimed)
            self.report(job, HOSTS[0], m.SandboxReady)
        self.tick()
        for job in self.jobs("running")[::2]:
            self.report(job, HOSTS[0], m.JobPaused, reason="on_failure", so_far="failure", hold=hold_of(job))
        self.tick()
        for job in self.jobs("paused")[::2]:
            self.report(job, HOSTS[0], m.SshConnected, session=f"s{job.id}", user="ada", fingerprint="f")
        self.tick()

    # -- the log ---------------------------------------------------------------------------------------------------

    def commit(self, *changes: c.AnyChange, watermark: int = 0, now: float = 0.0) -> None:
        self.head += 1
        published = self.head - 1 if self.head % 3 == 0 else self.state.published_to
        record = c.Record(1, self.head, "me", max(watermark, self.state.watermark), now, published, changes,
                          self.head - 1)  # fmt: skip
        record = c.decode_record(c.encode_record(record))
        for change in record.changes:
            if isinstance(change, c.Entered):
                self.entered.add(change.job)
            if isinstance(change, c.Paused):
                self.waited.add(change.job)
            if isinstance(change, c.HoldSet):
                self.holds[change.hold] = change.count
            elif isinstance(change, c.HoldRemoved):
                self.holds.pop(change.hold, None)
            elif isinstance(change, c.HoldUsed):
                self.uses[change.job] += 1
                self.holds[change.hold] -= 1
                if not self.holds[change.hold]:
                    del self.holds[change.hold]
            assert not isinstance(change, c.Retried) or change.job not in self.entered
        self.log.append((record, self.head))
        self.checker.take(self.head, record)
        fold(self.state, record, self.head)

    def say(self, fact: m.Fact) -> None:
        self.told.append(fact)
        self.store(fact)
        if self.sequence % 3:  # most facts are decided on alone, some together with what follows
            self.tick()

    def store(self, fact: m.Fact) -> None:
        self.sequence += 1
        self.waiting.append(Stored(self.sequence, self.clock, fact))

    @rule()
    def tick(self) -> None:
        before = fingerprint(self.state)
        decision = decide(self.state, self.waiting, self.state.now)
        assert fingerprint(self.state) == before, "decide changed the state it was given"
        assert decide(self.state, self.waiting, self.state.now) == decision
        self.waiting = []
        self.commit(*decision.changes, watermark=decision.watermark, now=decision.now)
        self.nothing_is_left_to_grant(self.state)

    def nothing_is_left_to_grant(self, state: State) -> None:
        """A tick looks at those only whom its facts concern: nobody else may have been next."""
        assert [
            job.id for job in state.jobs.values() if job.status == "queued" and not reason_to_wait(state, job)
        ] == []
        assert {id for id, org in state.orgs.items() if org.pressed} == set(state.queues)
        assert decide(state, [], state.now).changes == ()

    @rule(seconds=st.floats(-300, 300))
    def clock_moves(self, seconds: float) -> None:
        self.clock = max(1.0, self.clock + seconds)

    # -- publishers and people -------------------------------------------------------------------------------------

    @rule(org=st.sampled_from(ORGS), jobs=st.integers(1, 3), priority=st.integers(0, 2), resume=st.booleans(),
          retry=st.booleans())  # fmt: skip
    def request(self, org: str, jobs: int, priority: int, resume: bool, retry: bool = True) -> None:
        self.runs += 1
        run = f"r{self.runs}"
        accepted = tuple(m.AcceptedJob(job=f"{run}-{n}", key=f"k{n}", pool="default") for n in range(1, jobs + 1))
        self.say(m.RunAccepted(id=run, time="", org=org, run=run, project="web", request=run, jobs=accepted,
                               priority=priority, source=f"REQ:{self.runs}", retry="infrastructure" if retry else "",
                               on_expiry="resume" if resume else "cancel"))  # fmt: skip

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run = f"r{data.draw(st.integers(1, self.runs))}"
        self.say(m.RunCancel(id=f"c{self.sequence}", time="", org=data.draw(st.sampled_from(ORGS)), run=run))

    @rule(org=st.sampled_from(ORGS), slots=st.integers(0, 3), weight=st.integers(1, 3))
    def configure(self, org: str, slots: int, weight: int) -> None:
        self.say(m.OrgConfigured(id=f"o{self.sequence}", time="", org=org, run="_", slots=slots, weight=weight))

    @rule(slots=st.none() | st.integers(0, 4))
    def configure_pool(self, slots: int | None) -> None:
        self.say(m.PoolConfigured(id=f"o{self.sequence}", time="", org="_", run="_", pool="default", slots=slots))

    @rule(org=st.sampled_from(ORGS), key=st.sampled_from(("", "k1", "k2")), count=st.integers(1, 2),
          seconds=st.floats(1, 500))  # fmt: skip
    def set_hold(self, org: str, key: str, count: int, seconds: float) -> None:
        self.number += 1
        self.say(m.HoldSet(id=f"n{self.number}", time="", org=org, run="_", project="web", hold=f"x{self.number}",
                           user="ada", key=key, count=count, until=self.clock + seconds))  # fmt: skip

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), org=st.sampled_from(ORGS))
    def remove_hold(self, data: st.DataObject, org: str) -> None:
        hold = data.draw(st.sampled_from(sorted(self.holds)))
        self.say(m.HoldRemove(id=f"r{self.sequence}", time="", org=org, run="_", hold=hold))

    @precondition(lambda self: self.jobs("queued", "starting", "running", "paused"))
    @rule(data=st.data(), by=st.sampled_from(("ada", "bob")), off=st.booleans(), back=st.integers(0, 2))
    def pause(self, data: st.DataObject, by: str, off: bool, back: int) -> None:
        job = data.draw(st.sampled_from(self.jobs("queued", "starting", "running", "paused")))
        run, revision = self.state.runs[job.run], job.forced.revision if job.forced else 0
        self.say(m.RunPause(id=f"p{self.sequence}", time="", org=run.org, run=run.id, job=job.id, by=by, off=off,
                            attempt=job.attempt, revision=revision - back))  # fmt: skip

    # -- hosts -----------------------------------------------------------------------------------------------------

    @rule(host=st.sampled_from(HOSTS), capacity=st.integers(0, 3))
    def room(self, host: str, capacity: int) -> None:
        self.number += 1
        self.say(m.SandboxRoom(id=f"n{self.number}", time="", org="_", run="_", host=host, pool="default",
                               incarnation=str(self.incarnations[host]), capacity=capacity, serial=self.number,
                               drained=self.heard[host][0], drain_serial=self.heard[host][1]))  # fmt: skip

    @precondition(lambda self: self.state.hosts)
    @rule(data=st.data(), on=st.booleans())
    def drain(self, data: st.DataObject, on: bool) -> None:
        """As the API does: the serial after the one that it knows. Of two who do so at once, the first counts."""
        host = data.draw(st.sampled_from(sorted(self.state.hosts)))
        serial = self.state.hosts[host].drain_serial + 1
        self.words.setdefault((host, serial), on)
        self.say(m.HostDrain(id=f"d{self.sequence}", time="", org="_", run="_", host=host, drain=on, serial=serial))

    @precondition(lambda self: self.state.hosts)
    @rule(data=st.data(), folder_lost=st.booleans())
    def hear(self, data: st.DataObject, folder_lost: bool) -> None:
        """A host reads its commands; or it has forgotten them all."""
        host = data.draw(st.sampled_from(sorted(self.state.hosts)))
        known = self.state.hosts[host]
        self.heard[host] = (False, 0) if folder_lost else (known.drained, known.drain_serial)

    @rule(host=st.sampled_from(HOSTS))
    def restart(self, host: str) -> None:
        self.incarnations[host] += 1

    def jobs(self, *statuses: str) -> list[Any]:
        return sorted((job for job in self.state.jobs.values() if job.status in statuses), key=lambda job: job.id)

    def claimed(self) -> list[Any]:
        return [job for job in self.jobs("starting", "running", "paused", "stopping") if job.host]

    def incarnation(self, job: Any, host: str, kind: type[m.HostFact]) -> str:
        """A host's new process says that it has the job before it says anything of it."""
        claimed = job.host == host and kind is not m.JobClaimed
        return job.incarnation if claimed else str(self.incarnations[host])

    def report(self, job: Any, host: str, kind: type[m.HostFact], **fields: Any) -> None:
        key = (job.id, job.attempt)
        self.serials[key] = self.serials.get(key, 0) + 1
        run = self.state.runs[job.run]
        fact = kind(id=f"{job.id}.{job.attempt}.{self.serials[key]}", time="", org=run.org, run=run.id, job=job.id,
                    attempt=job.attempt, host=host, incarnation=self.incarnation(job, host, kind),
                    serial=self.serials[key], **fields)  # fmt: skip
        self.say(fact)  # type: ignore[arg-type]

    @precondition(lambda self: self.jobs("starting", "running", "paused"))
    @rule(data=st.data(), host=st.sampled_from(HOSTS))
    def claim(self, data: st.DataObject, host: str) -> None:
        job = data.draw(st.sampled_from(self.jobs("starting", "running", "paused")))
        self.report(job, job.host or host, m.JobClaimed)

    @precondition(lambda self: self.claimed())
    @rule(data=st.data(), foreign=st.booleans())
    def host_says(self, data: st.DataObject, foreign: bool) -> None:
        job = data.draw(st.sampled_from(self.claimed()))
        host = next(one for one in HOSTS if one != job.host) if foreign else job.host
        facts: list[tuple[type[m.HostFact], dict[str, Any]]] = [
            (m.SandboxReady, {}),
            (m.JobPaused, {"reason": "on_failure", "so_far": "failure", "hold": hold_of(job)}),
            (m.JobPaused, {"reason": "forced", "step": 1, "revision": job.forced.revision if job.forced else 0}),
            (m.JobPausing, {"step": 1, "name": "a", "by": "eve", "revision": job.forced.revision if job.forced else 0}),
            (m.JobResumed, {"choice": "continue"}),
            (m.JobFinished, {"result": "failure"}),
            (m.JobFinished, {"result": "error", "reason": "host_isolated"}),
            (m.SandboxFailed, {"reason": "sandbox_failed"}),
            (m.SandboxFailed, {"reason": "image_missing"}),
            (m.SshConnected, {"session": f"s{self.sequence}", "user": "ada", "fingerprint": "f"}),
            (m.SshActive, {"age": 1.0}),
        ]
        facts += [(m.SshClosed, {"session": one, "user": "ada", "reason": "exit"}) for one in sorted(job.sessions)]
        kind, fields = data.draw(st.sampled_from(facts))
        self.report(job, host, kind, **fields)

    @rule(host=st.sampled_from(HOSTS))
    def lost(self, host: str) -> None:
        self.say(m.SandboxLost(id=f"l{self.sequence}", time="", org="_", run="_", host=host,
                               incarnation=str(self.incarnations[host])))  # fmt: skip

    @precondition(lambda self: self.jobs("starting", "running", "paused", "stopping"))
    @rule(data=st.data())
    def one_lost(self, data: st.DataObject) -> None:
        """The janitor finds a job that no living host holds; it may not be claimed yet."""
        job = data.draw(st.sampled_from(self.jobs("starting", "running", "paused", "stopping")))
        run = self.state.runs[job.run]
        self.say(m.SandboxLost(id=f"l{self.sequence}", time="", org=run.org, run=run.id, job=job.id,
                               attempt=job.attempt, host=job.host or HOSTS[0],
                               incarnation=job.incarnation or "1"))  # fmt: skip

    # -- the janitor, and an unreliable world ------------------------------------------------------------------------

    @precondition(lambda self: self.jobs("paused"))
    @rule(data=st.data(), back=st.integers(0, 2), late=st.booleans())
    def expire(self, data: st.DataObject, back: int, late: bool) -> None:
        job = data.draw(st.sampled_from(self.jobs("paused")))
        if late:
            self.clock = max(self.clock, job.deadline + 1)
        run = self.state.runs[job.run]
        self.say(m.SessionExpired(id=f"e{self.sequence}", time="", org=run.org, run=run.id, job=job.id,
                                  attempt=job.attempt, reason="idle", revision=job.revision - back))  # fmt: skip

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        self.store(data.draw(st.sampled_from(self.told[-20:])))

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def proved(self) -> None:
        self.checker.sums()
        assert self.checker.wrong == []

    @invariant()
    def a_host_is_drained_when_the_newest_word_says_so_and_has_no_place_then(self) -> None:
        for host in self.state.hosts.values():
            assert host.drained == self.words.get((host.id, host.drain_serial), False)
            assert host.places == (0 if host.drained else host.capacity)
        assert self.state.pool("default").capacity == sum(host.places for host in self.state.hosts.values())

    @invariant()
    def only_paused_jobs_have_deadlines(self) -> None:
        for job in self.state.jobs.values():
            assert not job.deadline or job.status == "paused"

    @invariant()
    def a_job_is_tried_again_once_where_it_may_and_by_nobody_entered(self) -> None:
        for job in self.state.jobs.values():
            assert len(job.earlier) <= RETRIES and job.attempt <= 1 + len(job.earlier)
            assert not job.earlier or self.state.runs[job.run].retry
            if job.status == "queued":
                fresh = (job.host, job.sessions, job.seen, job.first_login, job.deadline, job.serial)
                assert fresh == ("", frozenset(), frozenset(), 0, 0, 0)

    @invariant()
    def a_hold_is_counted_down_once_a_job_and_never_below_nothing(self) -> None:
        left = {hold.id: hold.left for org in self.state.orgs.values() for hold in org.holds.values() if hold.left}
        assert left == self.holds and all(count > 0 for count in left.values())
        for job in self.state.jobs.values():
            assert self.uses[job.id] <= 1 + len(job.earlier)
            assert job.hold is None or not job.hold.used or self.uses[job.id]

    @invariant()
    def whoever_asked_for_a_pause_may_enter_from_the_pause_on(self) -> None:
        for job in self.state.jobs.values():
            assert job.forced is None or not job.forced.open or job.id in self.waited
            assert job.forced is None or not guests(job.forced) or set(job.forced.users) <= {"ada", "bob", "eve"}
            assert job.forced is None or not job.forced.armed or job.forced.by in {*job.forced.users, ""}

    @invariant()
    def queues_are_in_the_order_in_which_jobs_came(self) -> None:
        for ranks in self.state.queues.values():
            for jobs in ranks.values():
                places = [self.state.place(job) for job in jobs]
                assert places == sorted(places)
        draft = Draft(self.state)
        assert [list(draft.waiting(org)) for org in ORGS] == [list(self.state.waiting(org)) for org in ORGS]

    def teardown(self) -> None:
        self.tick()
        before = fingerprint(self.state)
        for fact in self.told:
            hosts = isinstance(fact, m.SandboxLost) and not fact.job
            if not hosts and not isinstance(fact, m.OrgConfigured | m.PoolConfigured | m.RunCancel):
                self.store(fact)
        self.clock = self.state.now
        granted = {(change.job, change.attempt) for change in decide(self.state, [], self.state.now).changes
                   if isinstance(change, c.Granted)}  # fmt: skip
        changes = decide(self.state, self.waiting, self.state.now).changes
        changes = tuple(one for one in changes if not isinstance(one, c.HoldRemoved) or not one.forget)
        harmless = (c.Duplicate, c.Stray)
        assert [one for one in changes if not isinstance(one, harmless) and not is_grant(one, granted)] == []
        assert fingerprint(self.state) == before


def hold_of(job: Any) -> str:
    """What the host of a job says at its first failure."""
    return job.hold.id if job.hold else ""


def is_grant(change: c.AnyChange, granted: set[tuple[str, int]]) -> bool:
    return isinstance(change, c.Granted) and (change.job, change.attempt) in granted


def fingerprint(state: State) -> bytes:
    """All of a state that the fold is responsible for."""
    queues = {org: {str(rank): list(jobs) for rank, jobs in ranks.items()} for org, ranks in state.queues.items()}
    sums = (state.orgs, state.hosts, state.pools)
    parts = (state.watermark, state.now, state.jobs, state.runs, state.known, sums, queues)
    return msgspec.msgpack.encode(parts, order="deterministic")


TestScheduler = World.TestCase
TestScheduler.settings = settings(
    max_examples=250, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
