"""The workflow language: GitHub-Actions-style YAML into jobs, with every fault named by line and column.

Intake and the command line read a file with the same code. Pure; PyYAML is imported when a text is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pitstop_common.errors import PitstopError
from pitstop_common.faults import Faults, shown, told
from pitstop_common.limits import MAX_STEPS
from pitstop_common.messages import Fault
from pitstop_common.spec import JobSpec, StepSpec
from pitstop_common.workflow.jobs import read_workflow
from pitstop_common.workflow.place import Place, Reading
from pitstop_common.workflow.steps import Defaults, read_steps
from pitstop_common.workflow.tree import from_value

__all__ = ["StepNotFound", "WorkflowError", "compile_workflow", "find_step", "read_request_steps", "read_workflow"]

_LISTED_STEPS = 30


class WorkflowError(PitstopError):
    """The file cannot be run. `faults` has them all; pointers begin with `/workflow` (or `/jobs` for `only`)."""

    code: ClassVar[str] = "workflow"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(told(faults))
        self.faults = faults


class StepNotFound(PitstopError):
    """The job has no such step. The text lists those it has."""

    code: ClassVar[str] = "step_not_found"


def compile_workflow(text: str, *, run: str, only: Sequence[str] = (), pool: str) -> tuple[JobSpec, ...]:
    """The jobs of a workflow file in its order, `<run>-1` first. `only`: keys or names of the jobs wanted.

    Raises WorkflowError with all faults.
    """
    faults = Faults()
    jobs = read_workflow(text, faults, run=run, only=only, pool=pool)
    if faults:
        raise WorkflowError(faults.found)
    return jobs


def read_request_steps(steps: Any, faults: Faults) -> tuple[StepSpec, ...]:
    """The `steps` of a request: decoded JSON, with the keys of a workflow's steps; unknown keys are ignored.

    Faults point to `/steps/…`. Raises TooManyFaults.
    """
    if isinstance(steps, list) and len(steps) > MAX_STEPS:  # before a tree of them is made
        faults.add(("steps",), f"has {len(steps)} steps; at most {MAX_STEPS} are accepted")
        return ()
    return read_steps(Place(Reading(faults, strict=False), from_value(steps), ("steps",)), Defaults())


def find_step(job: JobSpec, wanted: int | str) -> int:
    """The number (from 1) of a step given by number, id or name. Raises StepNotFound."""
    if isinstance(wanted, int):
        if 1 <= wanted <= len(job.steps):
            return wanted
        raise StepNotFound(f"there is no step {wanted}; job {job.key} has {_listed(job)}")
    matches = [step.index for step in job.steps if step.id == wanted] or [
        step.index for step in job.steps if step.name == wanted
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        numbers = ", ".join(map(str, matches))
        raise StepNotFound(f"{shown(wanted)} names several steps ({numbers}); give the number")
    raise StepNotFound(f"there is no step {shown(wanted)}; job {job.key} has {_listed(job)}")


def _listed(job: JobSpec) -> str:
    steps = [f"{step.index} {shown(step.name)}" for step in job.steps[:_LISTED_STEPS]]
    more = len(job.steps) - len(steps)
    return ", ".join(steps) + (f" and {more} more" if more > 0 else "")
