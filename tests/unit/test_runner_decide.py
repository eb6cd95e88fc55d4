"""The rules of a job, one story a test. Events go in, instructions and facts come out; no clock, no I/O."""

from __future__ import annotations

import msgspec
import pytest

from pitstop_common.messages import HOLD_OVER, JobFinished, JobPaused, JobResumed, SshAddress, StepFinished
from pitstop_common.spec import JobSpec, PausePlan, RunSpec, SessionPolicy, StepSpec
from pitstop_sandbox.decide import deadline, decide, pending
from pitstop_sandbox.events import (
    Active,
    Asked,
    Event,
    Exports,
    Instruction,
    Kill,
    Note,
    Publish,
    Remove,
    Removed,
    Reply,
    Resumed,
    RunStep,
    SandboxBroke,
    SandboxMade,
    Say,
    SessionClosed,
    SessionOpened,
    ShellEnded,
    ShellStarted,
    StepEnded,
    Stopped,
    Tick,
)
from pitstop_sandbox.model import JobState, begin
from pitstop_sandbox.transitions import TABLE, IllegalEvent, Status, diagram

SSH = SshAddress(host="relay", port=22, user="aaaaaaaaaaaa-1", command="ssh aaaaaaaaaaaa-1@relay")


class Story:
    """A job whose events are told one after another, a second apart."""

    def __init__(self, *steps: StepSpec, pause: PausePlan | None = None, timeout: float = 3600) -> None:
        job = JobSpec(job="aaaaaaaaaaaa-1", key="b", name="b", steps=steps, timeout=timeout, pause=pause or PausePlan())
        run = RunSpec(
            run="aaaaaaaaaaaa", org="acme", project="web", request="r", actor="ada", jobs=(job,),
            session=SessionPolicy(users=("bob",), connect_window=600),
        )  # fmt: skip
        self.state: JobState = begin(run, job, 1)
        self.now = 1000.0
        self.done: list[Instruction] = []

    def tell(self, *events: Event) -> Story:
        for event in events:
            self.now += 1
            self.state, instructions = decide(self.state, event, self.now)
            self.done += instructions
        return self

    def made(self) -> Story:
        return self.tell(SandboxMade(backend="fake", shells=("/bin/bash",), ssh=SSH))

    def ended(self, code: int | None = 0, **fields: object) -> Story:
        step = self.state.current
        tries = self.state.step(step).tries
        return self.tell(StepEnded(step=step, tries=tries, exit_code=code, **fields))  # type: ignore[arg-type]

    def enter(self, session: str = "s", *, shell: bool = True) -> Story:
        self.tell(SessionOpened(session=session, user="ada"))
        return self.tell(ShellStarted(session=session, process=f"{session}-sh")) if shell else self

    def leave(self, session: str = "s", *, by_itself: bool = True) -> Story:
        return self.tell(
            ShellEnded(session=session, process=f"{session}-sh", by_itself=by_itself),
            SessionClosed(session=session, reason="exit" if by_itself else "disconnect"),
        )

    def facts(self, kind: type) -> list[object]:
        return [item.fact for item in self.done if isinstance(item, Publish) and isinstance(item.fact, kind)]

    @property
    def steps(self) -> list[str]:
        return [step.result for step in self.state.steps]


def steps(*conditions: str) -> tuple[StepSpec, ...]:
    return tuple(
        StepSpec(index=number, name=f"s{number}", condition=condition)  # type: ignore[arg-type]
        for number, condition in enumerate(conditions or ("success", "success"), 1)
    )


def test_steps_run_in_order_and_the_end_is_said_last() -> None:
    story = Story(*steps()).made().ended().ended()
    assert story.state.status is Status.FINISHING and isinstance(story.done[-1], Remove)
    story.tell(Removed())
    assert [type(item).__name__ for item in story.done[-2:]] == ["EndLog", "Publish"]
    (fact,) = story.facts(JobFinished)
    assert isinstance(fact, JobFinished)
    assert fact.result == "success" and [step.attempts for step in fact.report.steps] == [1, 1]


def test_conditions_after_a_failure() -> None:
    story = Story(*steps("success", "success", "failure", "always", "cancelled")).made().ended(1).ended().ended()
    assert story.steps == ["failure", "skip", "success", "success", "skip"]
    assert story.state.result == "failure"


def test_continue_on_error_neither_fails_nor_pauses() -> None:
    one = StepSpec(index=1, name="s1", continue_on_error=True)
    story = Story(one, StepSpec(index=2, name="s2"), pause=PausePlan(on_failure=True)).made().ended(1).ended()
    assert story.steps == ["failure", "success"] and story.state.result == "success"


@pytest.mark.parametrize("ended", [{"code": 3}, {"code": None, "error": "no such program"}])
def test_a_failure_pauses_and_a_retry_to_success_is_on_record(ended: dict[str, object]) -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True)).made().ended(**ended).enter()  # type: ignore[arg-type]
    (paused,) = story.facts(JobPaused)
    assert isinstance(paused, JobPaused)
    assert (paused.reason, paused.step, paused.so_far) == ("on_failure", 1, "failure")
    assert paused.ssh is not None and paused.ssh.expires
    story.tell(Asked(id="q", verb="retry", session="s"))
    assert story.done[-1] == RunStep(1, 2, "q")
    story.ended(0)
    assert Reply("q", 0, "the step ended: success") in story.state.replies
    story.leave().ended().tell(Removed())
    (fact,) = story.facts(JobFinished)
    assert isinstance(fact, JobFinished) and fact.result == "success"
    first = fact.report.steps[0]
    assert (first.attempts, first.choice, first.by, first.result) == (2, "retry", "ada", "success")
    (resumed,) = story.facts(JobResumed)
    assert isinstance(resumed, JobResumed) and (resumed.choice, resumed.by) == ("continue", "ada")


def test_a_hold_pauses_at_the_first_failure_only_and_lets_people_in_from_then_on() -> None:
    story = Story(*steps("success", "always", "always"), pause=PausePlan(hold="h1", hold_user="eve")).made()
    assert not story.state.offers
    story.ended(1).enter().leave()
    (paused,) = story.facts(JobPaused)
    assert isinstance(paused, JobPaused)
    assert (paused.reason, paused.step, paused.hold, paused.ssh is not None) == ("on_failure", 1, "h1", True)
    said = [line for item in story.done if isinstance(item, Note) for line in item.lines]
    assert "Let in: eve" in said and not any("ada" in line for line in said if line.startswith("Let in"))
    story.ended(2).ended(0).tell(Removed())
    assert story.steps == ["failure", "failure", "success"] and len(story.facts(JobPaused)) == 1


def test_a_hold_that_was_used_up_lets_the_job_go_on_unless_its_own_people_wait() -> None:
    over = Resumed(reason=HOLD_OVER, notice="used up")
    story = Story(*steps("success", "always"), pause=PausePlan(hold="h1")).made().ended(1).tell(over)
    assert story.state.status is Status.STEPPING and story.state.current == 2
    own = Story(*steps(), pause=PausePlan(hold="h1", on_failure=True)).made().ended(1).tell(over)
    assert own.state.status is Status.PAUSED


def test_a_hold_is_for_no_step_that_may_fail() -> None:
    one = StepSpec(index=1, name="s1", continue_on_error=True)
    assert Story(one, pause=PausePlan(hold="h1")).made().ended(1).facts(JobPaused) == []


def test_continue_at_a_failed_step_leaves_it_failed() -> None:
    story = Story(*steps("success", "success", "always"), pause=PausePlan(on_failure=True)).made().ended(1).enter()
    story.tell(Asked(id="q", verb="continue", session="s")).ended().tell(Removed())
    assert story.steps == ["failure", "skip", "success"] and story.state.result == "failure"
    assert (story.state.step(1).choice, story.state.step(1).by) == ("continue", "ada")


def test_only_the_last_interactive_shell_that_ends_by_itself_resumes() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended()
    story.enter("exec", shell=False).tell(SessionClosed(session="exec", reason="exit"))
    story.enter("one").enter("two").leave("one")
    assert story.state.status is Status.PAUSED
    story.leave("two")
    assert story.state.status is Status.STEPPING and story.state.current == 2


def test_a_dropped_connection_starts_the_connect_window_anew() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended()
    first = story.state.deadline
    story.enter()
    assert story.state.deadline == 0
    story.leave(by_itself=False)
    assert story.state.status is Status.PAUSED and story.state.deadline > first
    assert len(story.facts(JobPaused)) == 2


def test_a_shell_whose_connection_breaks_goes_on_and_its_end_resumes() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended().enter()
    story.tell(SessionClosed(session="s", reason="disconnect"))
    assert story.state.detached == {"s-sh": "ada"} and story.state.shell_open
    story.tell(ShellEnded(session="", process="s-sh", by_itself=True))
    assert story.state.status is Status.STEPPING and not story.state.detached
    (resumed,) = story.facts(JobResumed)
    assert isinstance(resumed, JobResumed) and (resumed.choice, resumed.by) == ("continue", "ada")


def test_a_shell_that_is_taken_again_belongs_to_the_newer_connection() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended().enter("s1")
    story.tell(SessionOpened(session="s2", user="ada"), ShellStarted(session="s2", process="s1-sh"))
    story.tell(SessionClosed(session="s1", reason="disconnect"))
    assert story.state.sessions["s2"].shells == ("s1-sh",) and not story.state.detached
    story.tell(SessionClosed(session="s2", reason="disconnect"), SessionOpened(session="s3", user="ada"))
    story.tell(ShellStarted(session="s3", process="s1-sh"))
    assert not story.state.detached
    story.tell(ShellEnded(session="s3", process="s1-sh", by_itself=True))
    assert story.state.status is Status.STEPPING


def test_the_end_of_one_shell_does_not_resume_while_another_was_left_behind() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended().enter("s1")
    story.tell(SessionClosed(session="s1", reason="disconnect")).enter("s2").leave("s2")
    assert story.state.status is Status.PAUSED and story.state.deadline
    assert story.state.detached == {"s1-sh": "ada"}


def test_before_a_step() -> None:
    story = Story(*steps(), pause=PausePlan(before_step=2)).made().ended()
    assert story.state.status is Status.PAUSED and story.state.step(2).tries == 0
    story.enter().tell(Asked(id="q", verb="retry", session="s"))
    assert "has not run yet" in story.state.replies[-1].text
    story.leave().ended().tell(Removed())
    assert story.steps == ["success", "success"]


def test_skip_forgets_a_failure_and_keeps_its_exit_code() -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True)).made().ended(42).enter()
    story.tell(Asked(id="q", verb="skip", session="s")).ended().tell(Removed())
    assert story.steps == ["skip", "success"] and story.state.result == "success"
    step = story.state.step(1)
    assert (step.exit_code, step.choice, step.by) == (42, "skip", "ada")
    (resumed,) = story.facts(JobResumed)
    assert isinstance(resumed, JobResumed) and (resumed.choice, resumed.by) == ("skip", "ada")


def test_skip_before_a_step_leaves_it_out() -> None:
    story = Story(*steps("success", "success", "success"), pause=PausePlan(before_step=2)).made().ended().enter()
    story.tell(Asked(id="q", verb="skip", session="s"))
    assert story.state.current == 3 and story.steps[:2] == ["success", "skip"]
    assert story.state.step(2).tries == 0


def test_there_is_nothing_to_skip_of_a_success() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1)).made().ended().enter()
    story.tell(Asked(id="q", verb="skip", session="s"))
    assert story.state.status is Status.PAUSED and story.state.replies[-1].code == 2
    assert "not to be skipped: it ended with success" in story.state.replies[-1].text


def test_fail_of_a_success_lets_the_rest_go_by_their_conditions() -> None:
    story = Story(*steps("success", "success", "failure"), pause=PausePlan(after_step=1)).made().ended().enter()
    story.tell(Asked(id="q", verb="fail", session="s"))
    assert story.state.current == 3 and story.steps[:2] == ["failure", "skip"]
    assert (story.state.step(1).exit_code, story.state.step(1).choice) == (0, "fail")
    assert story.ended().tell(Removed()).state.result == "failure"


def test_fail_at_the_end_is_the_jobs_result() -> None:
    story = Story(*steps("success"), pause=PausePlan(at_end=True)).made().ended().enter()
    assert story.tell(Asked(id="q", verb="fail", session="s")).state.result == "failure"


def test_next_pauses_after_each_step_it_is_asked_for_and_no_further() -> None:
    story = Story(*steps(*["success"] * 4), pause=PausePlan(before_step=2)).made().ended().enter()
    story.tell(Asked(id="q1", verb="next", session="s")).ended()
    assert (story.state.status, story.state.paused, story.state.current) == (Status.PAUSED, "after_step", 2)
    story.tell(Asked(id="q2", verb="next", session="s")).ended()
    assert (story.state.status, story.state.current) == (Status.PAUSED, 3)
    story.tell(Asked(id="q3", verb="continue", session="s")).ended()
    assert story.state.status is Status.FINISHING
    assert [step.choice for step in story.state.steps] == ["", "next", "continue", ""]


def test_next_after_the_last_step_has_nothing_to_go_to() -> None:
    story = Story(*steps("success"), pause=PausePlan(at_end=True)).made().ended().enter()
    story.tell(Asked(id="q", verb="next", session="s"))
    assert story.state.status is Status.PAUSED and "no step is left" in story.state.replies[-1].text


def test_at_the_end_keeps_its_own_result() -> None:
    story = Story(*steps(), pause=PausePlan(at_end=True)).made().ended().ended(1)
    assert (story.state.status, story.state.paused) == (Status.PAUSED, "at_end")
    story.tell(Resumed(reason="idle"))
    assert story.state.result == "failure"
    (resumed,) = story.facts(JobResumed)
    assert isinstance(resumed, JobResumed) and (resumed.choice, resumed.by) == ("expired", "")


def test_who_was_at_the_last_step_is_not_asked_again_at_the_end() -> None:
    story = Story(*steps("success"), pause=PausePlan(on_failure=True, at_end=True)).made().ended(1).enter().leave()
    assert story.state.status is Status.FINISHING


def test_direct_waits_for_somebody_or_for_the_open_shell_or_ends() -> None:
    direct = PausePlan(direct=True)
    nobody = Story(*steps("success"), pause=direct).made().ended()
    assert nobody.state.status is Status.WAITING and nobody.state.deadline
    assert nobody.enter().leave().state.status is Status.FINISHING
    inside = Story(*steps("success"), pause=direct).made().enter().ended()
    assert inside.state.status is Status.WAITING and not inside.state.deadline
    assert inside.leave().state.status is Status.FINISHING
    gone = Story(*steps("success"), pause=direct).made().enter().leave()
    assert gone.state.status is Status.STEPPING
    assert gone.ended().state.status is Status.FINISHING


def test_expiry_during_a_retry_ends_the_retry_and_goes_on() -> None:
    story = Story(*steps("success", "always"), pause=PausePlan(on_failure=True)).made().ended(1).enter()
    story.tell(Asked(id="q", verb="retry", session="s"), Resumed(notice="idle"))
    assert Kill(1, 2, False) in story.done
    story.ended(143)
    assert story.state.status is Status.STEPPING and story.state.current == 2
    assert story.steps[0] == "failure"


def test_exit_during_a_retry_takes_its_outcome() -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True)).made().ended(1).enter()
    story.tell(Asked(id="q", verb="retry", session="s")).leave()
    assert story.state.status is Status.RETRYING
    story.ended(0)
    assert story.state.status is Status.STEPPING and story.state.current == 2


def test_an_aborted_retry_is_a_failure_and_stays_paused() -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True)).made().ended(1).enter()
    story.tell(Asked(id="q", verb="retry", session="s"), Asked(id="a", verb="abort", session="s")).ended(0)
    assert story.state.status is Status.PAUSED and story.steps[0] == "failure"


@pytest.mark.parametrize("result", ["cancellation", "error", "timeout"])
def test_stop_kills_everything_and_gives_the_result(result: str) -> None:
    story = Story(*steps()).made().tell(Stopped(result=result, reason="idle", cause="fact.9"))  # type: ignore[arg-type]
    assert isinstance(story.done[-1], Remove)
    story.tell(Stopped(result="success"), Removed())
    (fact,) = story.facts(JobFinished)
    assert isinstance(fact, JobFinished)
    assert (fact.result, fact.reason, fact.cause) == (result, "idle", "fact.9")
    assert fact.report.steps[1].result == "skip"


def test_who_is_inside_at_the_end_is_said_to_have_left_before_it() -> None:
    story = Story(*steps(), pause=PausePlan(direct=True)).made().enter().tell(Stopped(result="cancellation"), Removed())
    said = [type(item.fact).__name__ for item in story.done if isinstance(item, Publish)]
    assert said[-2:] == ["SshClosed", "JobFinished"]


def test_a_step_that_runs_too_long_gets_term_then_kill() -> None:
    story = Story(StepSpec(index=1, name="s1", timeout=60), StepSpec(index=2, name="s2", condition="always")).made()
    due = deadline(story.state)
    assert due == story.now + 60
    story.tell(Tick())
    assert not [item for item in story.done if isinstance(item, Kill)]
    story.now = due
    story.tell(Tick())
    assert story.done[-1] == Kill(1, 1, False)
    again = deadline(story.state)
    assert again is not None and again - story.now == story.state.grace
    story.now = again
    story.tell(Tick())
    assert story.done[-1] == Kill(1, 1, True) and deadline(story.state) is None
    story.ended(137)
    assert story.steps[0] == "timeout" and story.state.current == 2
    assert story.ended().state.result == "failure"


def test_after_the_jobs_time_only_cleanup_runs_and_not_for_ever() -> None:
    story = Story(*steps("success", "success", "failure", "always", "cancelled"), timeout=100).made()
    story.now += 100
    story.tell(Tick()).ended(143)
    assert story.steps == ["timeout", "skip", "skip", "", ""] and story.state.current == 4
    due = deadline(story.state)
    assert due is not None
    story.now = due
    story.tell(Tick())
    assert story.state.status is Status.FINISHING and story.state.result == "timeout"


def test_time_stands_still_in_a_pause() -> None:
    story = Story(*steps(), pause=PausePlan(after_step=1), timeout=100).made().ended()
    assert deadline(story.state) is None
    story.now += 10_000
    story.enter().leave()
    due = deadline(story.state)
    assert due is not None and 90 < due - story.now < 100


def test_exports_are_seen_by_later_steps_and_by_a_retry() -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True)).made()
    story.ended(1, exports=Exports(env={"A": "1"}, path=("/a",)), masks=("secret",)).enter()
    story.tell(Asked(id="q", verb="retry", session="s"))
    assert (story.state.env, story.state.path, story.state.layer) == ({"A": "1"}, ("/a",), Exports())
    story.ended(0, exports=Exports(env={"A": "2"}, path=("/b", "/a"))).leave()
    assert (story.state.env, story.state.path, story.state.masks) == ({"A": "2"}, ("/b", "/a"), ("secret",))


def test_no_sandbox_is_an_error_with_its_reason() -> None:
    story = Story(*steps()).tell(SandboxBroke(code="create_failed", message="no bwrap"), Removed())
    said = [type(item.fact).__name__ for item in story.done if isinstance(item, Publish)]
    assert said == ["SandboxFailed", "JobFinished"]
    assert (story.state.result, story.state.reason) == ("error", "create_failed")


def test_a_lost_sandbox_ends_the_job_once() -> None:
    story = Story(*steps()).made().tell(SandboxBroke(code="sandbox_lost", message="gone")).ended(0)
    story.tell(SandboxBroke(code="sandbox_lost", message="gone"), Removed(), Removed())
    (fact,) = story.facts(JobFinished)
    assert isinstance(fact, JobFinished) and (fact.result, fact.reason) == ("error", "sandbox_lost")
    assert story.steps == ["error", "skip"]


def test_late_and_repeated_step_ends_change_nothing() -> None:
    story = Story(*steps()).made()
    late = StepEnded(step=1, tries=1, exit_code=0)
    story.tell(late)
    before, said = story.state, len(story.facts(StepFinished))
    story.tell(late)
    assert msgspec.structs.replace(story.state, now=0) == msgspec.structs.replace(before, now=0)
    assert len(story.facts(StepFinished)) == said


def test_activity_is_said_only_while_somebody_is_in() -> None:
    story = Story(*steps(), pause=PausePlan(direct=True)).made().tell(Active(at=1.0))
    assert "ssh.active" not in str(story.done)
    story.enter().tell(Active(at=1010.0))
    item = story.done[-1]
    assert isinstance(item, Publish) and item.at == 1010.0


def test_open_shells_are_told_of_a_pause_and_of_its_end() -> None:
    story = Story(*steps(), pause=PausePlan(direct=True, on_failure=True)).made().enter("a").enter("b").ended(1)
    story.leave("a").tell(Asked(id="q", verb="continue", session="b"))
    told = [item.text for item in story.done if isinstance(item, Say)]
    assert "step 1 failed" in told[0] and told[1] == "Resumed: continue, by ada" and "after the last step" in told[2]


def test_an_illegal_event_raises_and_changes_nothing() -> None:
    story = Story(*steps())
    before = story.state
    for event in (StepEnded(step=1, tries=1, exit_code=0), Removed()):
        with pytest.raises(IllegalEvent):
            story.tell(event)
    assert story.state == before
    story.made()
    with pytest.raises(IllegalEvent, match="SandboxMade while stepping"):
        story.made()


def test_what_is_begun_is_pending_until_it_is_done() -> None:
    story = Story(*steps(), pause=PausePlan(on_failure=True))
    assert [type(item).__name__ for item in pending(story.state)] == ["Create"]
    story.made()
    assert RunStep(1, 1) in pending(story.state)
    story.ended(1)
    assert not [item for item in pending(story.state) if isinstance(item, RunStep)]
    assert len([item for item in pending(story.state) if isinstance(item, Publish)]) == 4


def test_the_diagram_names_every_status_and_follows_the_table() -> None:
    drawn = diagram()
    assert all(status.value in drawn for status in TABLE)
    assert "paused --> retrying: Asked" in drawn
    assert "finished --> [*]" in drawn
