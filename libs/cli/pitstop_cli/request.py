"""From the options of `pitstop run` to the body of `run.requested`. Pure: everything wrong is found before anything
is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pitstop_cli.exits import USAGE, Failure
from pitstop_common.ids import run_id
from pitstop_common.messages import Fault
from pitstop_common.spec import JobSpec
from pitstop_common.workflow import StepNotFound, WorkflowError, compile_workflow, find_step

_LISTED: Final = 20


class SshOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for with --ssh…. Times in seconds, None: the default."""

    direct: bool = False
    after_step: int | None = None
    before_step: str | None = None
    """Its number from 1, id or name."""
    on_failure: bool = False
    any_failure: bool = False
    at_end: bool = False
    users: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    connect_window: float | None = None
    idle_timeout: float | None = None
    max_duration: float | None = None

    @property
    def asked(self) -> bool:
        """Is there any session to come."""
        return self.direct or self.at_step or self.on_failure or self.at_end

    @property
    def one_job(self) -> bool:
        """Does the option name a place that only one job can have."""
        return self.direct or self.at_step

    @property
    def at_step(self) -> bool:
        """Does it pause at a step that is named."""
        return self.after_step is not None or self.before_step is not None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run that may be published. `run` is its id, known beforehand."""

    run: str
    body: dict[str, Any]
    jobs: tuple[str, ...]
    pause: str
    """In words; empty: none."""


def plan(
    *, org: str, request: str, project: str, workflow: str, name: str, jobs: Sequence[str], source: dict[str, str],
    ssh: SshOptions, priority: int = 0, retry: str = "", secrets: Sequence[str] = (),
) -> Plan:  # fmt: skip
    """Check all that can be checked here. `name` is the workflow's file name for messages. Raises Failure (exit 2)."""
    specs = _compiled(workflow, name, run_id(org, request), jobs)
    _check_session(ssh, specs)
    body: dict[str, Any] = {"id": request, "org": org, "project": project, "workflow": workflow, "source": source}
    if jobs:
        body["jobs"] = list(jobs)
    if priority:
        body["priority"] = priority
    if retry:
        body["retry"] = retry
    if secrets:
        body["secrets"] = list(dict.fromkeys(secrets))
    block = ssh_block(ssh, _number(ssh, specs[0]) if ssh.at_step else None)
    if block:
        body["ssh"] = block
    return Plan(run=run_id(org, request), body=body, jobs=tuple(spec.key for spec in specs), pause=_words(ssh, specs))


def faults_as_lines(faults: Sequence[Fault], name: str) -> str:
    """Faults as editors understand them: `file:line:column: message`."""
    return "\n".join(
        f"{name}:{fault.line}:{fault.column}: {fault.message}"
        if fault.line
        else f"{name}: {fault.pointer.removeprefix('/workflow') or '/'} {fault.message}"
        for fault in faults
    )


def _compiled(workflow: str, name: str, run: str, jobs: Sequence[str]) -> tuple[JobSpec, ...]:
    try:
        return compile_workflow(workflow, run=run, only=tuple(jobs), pool="default")
    except WorkflowError as error:
        many = len(error.faults)
        what = f"{name} cannot be run ({many} fault{'s' * (many > 1)}):\n{faults_as_lines(error.faults, name)}"
        raise Failure(what, next="nothing was started", code=USAGE) from None


def check_options(ssh: SshOptions) -> None:
    """Do the options go together. Raises Failure."""
    if ssh.direct and (ssh.at_step or ssh.on_failure or ssh.at_end):
        raise Failure(
            "--ssh opens a terminal at once and cannot be combined with a pause",
            next="leave --ssh away, or the other --ssh-… option",
            code=USAGE,
        )
    if not ssh.asked and (ssh.users or ssh.keys or ssh.connect_window or ssh.idle_timeout or ssh.max_duration):
        raise Failure(
            "--ssh-user, --ssh-key and the session's times need a session",
            next="add --ssh, --ssh-after-step N, --ssh-before-step NAME, --ssh-on-failure or --ssh-at-end",
            code=USAGE,
        )
    if ssh.after_step is not None and ssh.before_step is not None:
        raise Failure(
            "--ssh-after-step and --ssh-before-step name one place each, and a run has one", next="leave one away",
            code=USAGE,
        )  # fmt: skip


def one_job_only(ssh: SshOptions, keys: Sequence[str]) -> None:
    """Is there one job where the options need one. Raises Failure."""
    if ssh.one_job and len(keys) != 1:
        option = "--ssh" if ssh.direct else "--ssh-after-step" if ssh.after_step is not None else "--ssh-before-step"
        raise Failure(
            f"{option} needs exactly one job; this run has {len(keys)}",
            next="name one: " + ", ".join(f"--job {key}" for key in keys[:_LISTED]),
            code=USAGE,
        )


def _check_session(ssh: SshOptions, specs: Sequence[JobSpec]) -> None:
    check_options(ssh)
    one_job_only(ssh, [spec.key for spec in specs])
    if ssh.at_step:
        _check_step(ssh, specs[0])


def _check_step(ssh: SshOptions, job: JobSpec) -> None:
    if ssh.after_step is not None and not 1 <= ssh.after_step <= len(job.steps):
        wrong = f"--ssh-after-step {ssh.after_step}: job {job.key} has {len(job.steps)} steps, counted from 1"
    else:
        try:
            _number(ssh, job)
            return
        except StepNotFound as error:
            wrong = f"--ssh-before-step: {error}"
    listed = "\n  ".join(f"{step.index} {step.name}" for step in job.steps[:_LISTED])
    raise Failure(wrong, next=f"its steps:\n  {listed}", code=USAGE)


def _number(ssh: SshOptions, job: JobSpec) -> int:
    """Of the step that is named. Raises StepNotFound."""
    if ssh.after_step is not None:
        return ssh.after_step
    named = ssh.before_step or ""
    return find_step(job, int(named) if named.isdecimal() and len(named) < 6 else named)


def ssh_block(ssh: SshOptions, step: int | str | None) -> dict[str, Any]:
    """The `ssh` of a request; empty: none is asked for. `step`: where, for a pause at a step."""
    if not ssh.asked:
        return {}
    pause = [
        word
        for word, wanted in (
            ("after_step", ssh.after_step is not None), ("before_step", ssh.before_step is not None),
            ("on_failure", ssh.on_failure), ("at_end", ssh.at_end),
        )
        if wanted
    ]  # fmt: skip
    block: dict[str, Any] = {
        "pause": pause,
        "any_failure": ssh.any_failure,
        "direct": ssh.direct,
        "users": list(ssh.users),
        "keys": list(ssh.keys),
    }
    times = {"step": step, "connect_window": ssh.connect_window, "idle_timeout": ssh.idle_timeout,
             "max_duration": ssh.max_duration}  # fmt: skip
    block |= {key: value for key, value in times.items() if value is not None}
    return {key: value for key, value in block.items() if value or key == "step"}


def _words(ssh: SshOptions, specs: Sequence[JobSpec]) -> str:
    words = []
    if ssh.direct:
        words.append("a terminal as soon as there is a sandbox")
    if ssh.after_step is not None:
        words.append(f"pause after step {ssh.after_step} ({specs[0].steps[ssh.after_step - 1].name})")
    if ssh.before_step is not None:
        number = _number(ssh, specs[0])
        words.append(f"pause before step {number} ({specs[0].steps[number - 1].name})")
    if ssh.on_failure:
        words.append("pause when a step fails" + (", also one that may fail" if ssh.any_failure else ""))
    if ssh.at_end:
        words.append("pause at the end")
    return ", ".join(words)
