"""A pause that somebody asks for while a step runs, as the job's host has it. Row B9."""

from __future__ import annotations

from tests.unit.test_runner_decide import SSH, Story

from pitstop_common.messages import JobPaused, JobPausing, JobResumed
from pitstop_common.spec import PausePlan, StepSpec
from pitstop_sandbox import control
from pitstop_sandbox.events import (
    Asked,
    PauseWanted,
    Publish,
    Reply,
    Resumed,
    SandboxMade,
    SessionOpened,
    StepEnded,
)
from pitstop_sandbox.notices import status
from pitstop_sandbox.transitions import Status

STEPS = tuple(StepSpec(index=number, name=name, run="x") for number, name in enumerate(("build", "test", "tidy"), 1))
MADE = SandboxMade(backend="fake", ssh=SSH)


def facts(story: Story, kind: type) -> list:  # type: ignore[type-arg]
    return [item.fact for item in story.done if isinstance(item, Publish) and isinstance(item.fact, kind)]


def test_the_step_in_progress_ends_and_the_job_waits_for_who_asked() -> None:
    story = Story(*STEPS).tell(MADE, PauseWanted(revision=1, by="eve"))
    (said,) = facts(story, JobPausing)
    assert (said.step, said.name, said.by, said.revision) == (1, "build", "eve", 1)
    assert story.state.status is Status.STEPPING and not story.state.offers, "nobody enters before the pause"
    story.tell(PauseWanted(revision=1, by="eve"), StepEnded(step=1, tries=1, exit_code=0))
    (paused,) = facts(story, JobPaused)
    assert (paused.reason, paused.step, paused.revision, paused.ssh.user) == ("forced", 1, 1, SSH.user)
    assert story.state.offers and story.state.guests == ("eve",) and len(facts(story, JobPausing)) == 1
    story.tell(Resumed(reason="idle"), StepEnded(step=2, tries=1, exit_code=0), PauseWanted(revision=1, by="eve"))
    assert story.state.current == 3, "one wish is one pause"


def test_asked_before_the_first_step_it_waits_after_that() -> None:
    story = Story(*STEPS).tell(PauseWanted(revision=1, by="eve"), MADE)
    assert [said.step for said in facts(story, JobPausing)] == [1]
    story.tell(StepEnded(step=1, tries=1, exit_code=1))
    assert facts(story, JobPaused)[0].so_far == "failure"


def test_what_the_run_pauses_for_anyway_fulfils_the_wish() -> None:
    story = Story(*STEPS, pause=PausePlan(on_failure=True)).tell(MADE, PauseWanted(revision=1, by="eve"))
    story.tell(StepEnded(step=1, tries=1, exit_code=1))
    assert [(one.reason, one.revision) for one in facts(story, JobPaused)] == [("on_failure", 1)]
    assert story.state.pausing is None and story.state.guests == ("eve",)


def test_a_wish_that_comes_while_it_is_paused_lets_its_person_in() -> None:
    story = Story(*STEPS, pause=PausePlan(after_step=1)).tell(MADE, StepEnded(step=1, tries=1, exit_code=0))
    story.tell(PauseWanted(revision=3, by="eve"))
    assert [one.revision for one in facts(story, JobPaused)] == [0, 3] and story.state.guests == ("eve",)


def test_a_wish_is_taken_back_and_an_older_one_that_comes_late_means_nothing() -> None:
    story = Story(*STEPS).tell(MADE, PauseWanted(revision=2, by="ada", off=True), PauseWanted(revision=1, by="eve"))
    story.tell(StepEnded(step=1, tries=1, exit_code=0))
    assert story.state.current == 2 and not facts(story, JobPaused)
    story.tell(PauseWanted(revision=3, by="eve"), PauseWanted(revision=4, by="ada", off=True))
    story.tell(StepEnded(step=2, tries=1, exit_code=0))
    assert story.state.current == 3 and not facts(story, JobPaused)


def test_taken_back_too_late_the_job_goes_on_if_nobody_has_entered() -> None:
    story = Story(*STEPS).tell(MADE, PauseWanted(revision=1, by="eve"), StepEnded(step=1, tries=1, exit_code=0))
    entered = Story(*STEPS).tell(MADE, PauseWanted(revision=1, by="eve"), StepEnded(step=1, tries=1, exit_code=0))
    story.tell(PauseWanted(revision=2, by="eve", off=True))
    assert [one.by for one in facts(story, JobResumed)] == ["eve"]
    entered.tell(SessionOpened(session="s", user="eve"), PauseWanted(revision=2, by="eve", off=True))
    assert entered.state.status is Status.PAUSED


def test_somebody_inside_asks_and_hostile_code_cannot_make_a_flood_of_it() -> None:
    story = Story(*STEPS, pause=PausePlan(direct=True)).tell(MADE, SessionOpened(session="s", user="bob"))
    story.tell(Asked(id="q", verb="pause", session="s"))
    assert [(one.step, one.by) for one in facts(story, JobPausing)] == [(1, "bob")]
    again = control.answer(control.Request("q2", "pause", "s"), story.state, story.now, {})
    assert isinstance(again, Reply) and (again.code, again.text) == (0, "the job pauses when step 1 ends")
    assert "the job pauses when step 1 ends" in status(story.state, story.now)
    story.tell(StepEnded(step=1, tries=1, exit_code=0))
    assert facts(story, JobPaused)[0].reason == "forced"
    refused = control.answer(control.Request("q3", "pause", "s"), story.state, story.now, {})
    assert isinstance(refused, Reply) and (refused.code, refused.text) == (2, "the job is paused already")
