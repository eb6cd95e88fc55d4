"""The rules of a job under any order of events, repeated and late ones among them; and after a crash at any of them."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pitstop_common.messages import JobFinished, JobPaused, SshAddress, SshClosed, SshConnected
from pitstop_common.spec import JobSpec, PausePlan, RunSpec, StepSpec
from pitstop_sandbox.decide import deadline, decide, pending
from pitstop_sandbox.events import (
    Active,
    Asked,
    Event,
    Exported,
    Exports,
    PauseWanted,
    Publish,
    Removed,
    Replied,
    Resumed,
    RunStep,
    SandboxBroke,
    SandboxMade,
    SandboxSaid,
    SessionClosed,
    SessionOpened,
    ShellEnded,
    ShellStarted,
    StepEnded,
    Stopped,
    Stored,
    Tick,
)
from pitstop_sandbox.model import JobState, begin
from pitstop_sandbox.transitions import TABLE, IllegalEvent, Status

OVER = (Status.FINISHING, Status.FINISHED)
SESSIONS = st.sampled_from(["s1", "s2", "s3"])
STEPS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        condition=st.sampled_from(["success", "failure", "always", "cancelled"]),
        continue_on_error=st.booleans(),
        timeout=st.sampled_from([0.0, 20.0]),
    ),
    min_size=1,
    max_size=4,
)
PLANS = st.builds(
    PausePlan,
    on_failure=st.booleans(),
    at_end=st.booleans(),
    direct=st.booleans(),
    after_step=st.integers(0, 4),
    before_step=st.integers(0, 4),
)


class AnyOrder(RuleBasedStateMachine):
    """Feeds one job; keeps its journal, and every fact that was ever asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[tuple[float, Event]] = []
        self.said: dict[str, Publish] = {}
        self.started: list[tuple[int, int]] = []
        self.now = 1000.0
        self.requests = 0
        self.revisions = 0

    @initialize(steps=STEPS, plan=PLANS)
    def start(self, steps: list[dict[str, Any]], plan: PausePlan) -> None:
        specs = tuple(StepSpec(index=number, name=f"s{number}", **step) for number, step in enumerate(steps, 1))
        job = JobSpec(job="aaaaaaaaaaaa-1", key="b", name="b", steps=specs, pause=plan, timeout=120)
        run = RunSpec(run="aaaaaaaaaaaa", org="acme", project="web", request="r", actor="ada", jobs=(job,))
        self.first = self.state = begin(run, job, 1)

    def feed(self, event: Event) -> None:
        before = self.state
        try:
            self.state, instructions = decide(self.state, event, self.now)
        except IllegalEvent:
            assert type(event).__name__ not in TABLE[before.status]
            assert self.state is before
            return
        self.journal.append((self.now, event))
        for item in instructions:
            if isinstance(item, Publish):
                assert item.fact.id not in self.said
                self.said[item.fact.id] = item
            if isinstance(item, RunStep):
                self.started.append((item.step, item.tries))

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: deadline(self.state) is not None)
    @rule()
    def a_deadline_comes(self) -> None:
        due = deadline(self.state)
        assert due is not None
        self.now = max(self.now, due)
        before = self.state
        self.feed(Tick())
        assert self.state != before, "a deadline that is due and does nothing would be due for ever"

    @rule(ssh=st.booleans())
    def made(self, ssh: bool) -> None:
        address = SshAddress(host="r", port=22, user="u", command="ssh u@r") if ssh else None
        self.feed(SandboxMade(backend="fake", ssh=address))

    @rule()
    def the_making_takes_long(self) -> None:
        before = self.state
        if self.state.status is Status.PREPARING:
            self.feed(SandboxSaid(text="fetching x"))
            assert self.state.lines == before.lines + 1 and self.state.status is Status.PREPARING

    @rule(code=st.sampled_from([0, 0, 1, None]), variables=st.dictionaries(st.sampled_from("AB"), st.text(max_size=2)))
    def step_ends(self, code: int | None, variables: dict[str, str]) -> None:
        if self.started:
            step, tries = self.started[-1]
            error = "" if code is not None else "no such program"
            exports = Exports(env=variables)
            self.feed(StepEnded(step=step, tries=tries, exit_code=code, error=error, exports=exports))

    @rule(data=st.data())
    def an_old_event_comes_again(self, data: st.DataObject) -> None:
        repeatable = [event for _, event in self.journal if not isinstance(event, Tick | Active | Exported)]
        if repeatable:
            event = data.draw(st.sampled_from(repeatable))
            before, said = self.state, len(self.said)
            self.feed(event)
            if isinstance(event, StepEnded | SandboxMade | SessionOpened | Stopped | Removed | Asked | PauseWanted):
                assert len(self.said) == said or isinstance(event, StepEnded | Stopped)
                if isinstance(event, StepEnded) and self.state.status is before.status:
                    assert self.state.steps == before.steps

    @rule(session=SESSIONS)
    def somebody_enters(self, session: str) -> None:
        self.feed(SessionOpened(session=session, user=f"user-{session}"))

    @rule(session=SESSIONS, reason=st.sampled_from(["exit", "disconnect", "expired", "stopped"]))
    def somebody_leaves(self, session: str, reason: str) -> None:
        self.feed(SessionClosed(session=session, reason=reason))

    @rule(session=SESSIONS, process=st.sampled_from(["p1", "p2"]))
    def a_shell_starts(self, session: str, process: str) -> None:
        self.feed(ShellStarted(session=session, process=process))

    @rule(session=SESSIONS, process=st.sampled_from(["p1", "p2"]), by_itself=st.booleans())
    def a_shell_ends(self, session: str, process: str, by_itself: bool) -> None:
        self.feed(ShellEnded(session=session, process=process, by_itself=by_itself))

    @rule(verb=st.sampled_from(["continue", "retry", "skip", "fail", "next", "abort", "pause"]), session=SESSIONS)
    def somebody_asks(self, verb: Any, session: str) -> None:
        self.requests += 1
        self.feed(Asked(id=f"q{self.requests}", verb=verb, session=session))

    @rule(off=st.booleans(), by=st.sampled_from(["ada", "bob"]), lost=st.booleans())
    def the_scheduler_wants_a_pause(self, off: bool, by: str, lost: bool) -> None:
        self.revisions += 1
        if not lost:  # the next one overtakes it
            self.feed(PauseWanted(revision=self.revisions, by=by, off=off))

    @rule()
    def somebody_types(self) -> None:
        self.feed(Active(at=self.now))

    @rule(value=st.text(max_size=2))
    def the_files_change(self, value: str) -> None:
        self.feed(Exported(exports=Exports(env={"C": value})))

    @rule()
    def the_pause_expires(self) -> None:
        self.feed(Resumed(reason="idle"))

    @rule()
    def the_scheduler_stops_it(self) -> None:
        if self.now % 3 < 1:  # else few stories get anywhere
            self.feed(Stopped(result="cancellation", reason="idle"))

    @rule()
    def the_sandbox_breaks(self) -> None:
        if self.now % 5 < 1:
            self.feed(SandboxBroke(code="sandbox_lost", message="gone"))

    @rule()
    def it_is_removed(self) -> None:
        self.feed(Removed())

    @rule()
    def the_next_is_stored(self) -> None:
        if self.state.outbox:
            self.feed(Stored(number=self.state.outbox[0].number))

    @rule()
    def the_next_is_answered(self) -> None:
        if self.state.replies:
            self.feed(Replied(id=self.state.replies[0].id))

    @invariant()
    def a_replay_gives_the_same(self) -> None:
        if self.journal and len(self.journal) % 7 == 0:
            assert fold(self.first, self.journal) == self.state

    @invariant()
    def every_try_starts_once(self) -> None:
        assert len(set(self.started)) == len(self.started)

    @invariant()
    def what_is_not_stored_is_pending(self) -> None:
        todo = pending(self.state)
        assert [item for item in todo if item in self.state.outbox] == list(self.state.outbox)
        assert self.state.status is not Status.FINISHED or not todo

    @invariant()
    def a_pause_that_was_asked_for_comes_and_lets_its_people_in(self) -> None:
        state = self.state
        assert state.pausing is None or state.status in (Status.PREPARING, Status.STEPPING, *OVER)
        forced = [item.fact for item in self.said.values()
                  if isinstance(item.fact, JobPaused) and item.fact.reason == "forced"]  # fmt: skip
        assert not forced or state.guests or not state.visitors or forced[0].revision == 0
        assert not state.guests or any(isinstance(item.fact, JobPaused) for item in self.said.values())

    @invariant()
    def a_shell_is_in_one_place(self) -> None:
        shells = [shell for session in self.state.sessions.values() for shell in session.shells]
        shells += self.state.detached
        assert len(set(shells)) == len(shells)

    @invariant()
    def people_and_ends_add_up(self) -> None:
        facts = [item.fact for item in self.said.values()]
        entered = [fact.session for fact in facts if isinstance(fact, SshConnected)]
        left = [fact.session for fact in facts if isinstance(fact, SshClosed)]
        assert len(set(entered)) == len(entered)
        assert set(entered) - set(left) == set(self.state.sessions)
        ends = [fact for fact in facts if isinstance(fact, JobFinished)]
        assert len(ends) == (1 if self.state.removed else 0)
        if ends:
            assert facts[-1] is ends[0], "nothing is said of a job after its end"

    def teardown(self) -> None:
        if not hasattr(self, "first"):
            return
        finish(self.state, self.now)
        for cut in range(0, len(self.journal), max(1, len(self.journal) // 5)):
            self.crash_at(cut)

    def crash_at(self, cut: int) -> None:
        """What a new runner finds of this prefix leads to facts of the same ids and words."""
        state = fold(self.first, self.journal[:cut])
        known = {item.fact.id for item in state.outbox if isinstance(item, Publish)}
        for kept in state.outbox:
            if isinstance(kept, Publish):
                assert self.said[kept.fact.id] == kept
        rest = state
        for now, event in self.journal[cut:]:
            rest, instructions = decide(rest, event, now)
            known |= {item.fact.id for item in instructions if isinstance(item, Publish)}
            for item in instructions:
                if isinstance(item, Publish):
                    assert self.said[item.fact.id] == item
        assert rest == self.state
        assert known <= set(self.said)


def fold(state: JobState, journal: list[tuple[float, Event]]) -> JobState:
    for now, event in journal:
        state, _ = decide(state, event, now)
    return state


def finish(state: JobState, now: float) -> None:
    """From wherever it is: done what is pending, the job comes to its end."""
    for _ in range(200):
        if state.status is Status.FINISHED:
            assert not state.outbox
            return
        state, _ = decide(state, next_event(state), now)
    raise AssertionError(f"the job does not end: {state.status}")


def next_event(state: JobState) -> Event:
    if state.outbox:
        return Stored(number=state.outbox[0].number)
    if state.replies:
        return Replied(id=state.replies[0].id)
    if state.status is Status.PREPARING:
        return SandboxMade(backend="fake")
    if state.in_step:
        return StepEnded(step=state.current, tries=state.step(state.current).tries, exit_code=0)
    if state.status is Status.FINISHING:
        return Removed()
    return Resumed(reason="idle")


AnyOrder.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
