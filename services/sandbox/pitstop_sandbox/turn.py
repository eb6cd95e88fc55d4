"""One turn of `decide`: the state being made, and what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pitstop_common.messages import HostFact, JobReport, SshAddress, StepReport
from pitstop_sandbox.events import EndLog, Instruction, Note, Outgoing, Publish, Reply
from pitstop_sandbox.model import JobState, StepState
from pitstop_sandbox.notices import rfc3339

_REMEMBERED = 64


class Turn:
    """Collects the new state and the instructions of one event."""

    def __init__(self, state: JobState, now: float) -> None:
        self.state = msgspec.structs.replace(state, now=max(state.now, now))
        self.instructions: list[Instruction] = []

    @property
    def now(self) -> float:
        """The time of this turn; it never goes back."""
        return self.state.now

    def set(self, **changes: Any) -> None:
        """Change fields of the state."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def set_step(self, number: int, **changes: Any) -> None:
        """Change fields of a step."""
        steps: list[StepState] = list(self.state.steps)
        steps[number - 1] = msgspec.structs.replace(steps[number - 1], **changes)
        self.set(steps=tuple(steps))

    def do(self, instruction: Instruction) -> None:
        """Have something done that the state itself asks for (see `decide.pending`)."""
        self.instructions.append(instruction)

    def publish(self, kind: type[HostFact], /, *, at: float = 0, cause: str = "", **fields: Any) -> None:
        """Store a fact of this job. Host and incarnation are filled in by whoever sends it."""
        state = self.state
        number = state.number + 1
        fact = kind(
            id=f"{state.job.job}.{state.attempt}.{number}", time=rfc3339(self.now), org=state.run.org,
            run=state.run.run, project=state.run.project, request=state.run.request, job=state.job.job,
            attempt=state.attempt, cause=cause or state.last_cause or state.cause, host="", incarnation="",
            serial=number, **fields,
        )  # fmt: skip
        self._send(Publish(number, fact, at))

    def note(self, lines: Sequence[str]) -> None:
        """Put lines of Pitstop's own into the log."""
        first = self.state.lines
        self.set(lines=first + len(lines))
        self._send(Note(self.state.number + 1, first, tuple(lines)))

    def end_log(self) -> None:
        """The log is complete."""
        self._send(EndLog(self.state.number + 1, self.state.lines))

    def reply(self, id_: str, code: int, text: str = "") -> None:
        """Answer a request of `pitstop-step`."""
        answer = Reply(id_, code, text)
        self.set(replies=(*self.state.replies, answer))
        self.do(answer)

    def asked(self, id_: str) -> None:
        """Remember a request, so that it is done once."""
        self.set(asked=(*self.state.asked, id_)[-_REMEMBERED:])

    def _send(self, item: Outgoing) -> None:
        self.set(number=item.number, outbox=(*self.state.outbox, item))
        self.do(item)


def report(state: JobState) -> JobReport:
    """All steps so far, as facts carry it."""
    steps = tuple(
        StepReport(
            index=spec.index, name=spec.name, result=done.result, exit_code=done.exit_code, attempts=done.tries,
            choice=done.choice, by=done.by, started=rfc3339(done.started) if done.started else "",
            duration=done.duration, outputs=done.outputs,
        )
        for spec, done in zip(state.job.steps, state.steps, strict=True)
    )  # fmt: skip
    sandbox = "; ".join((state.backend, *([state.image] if state.image else []), *state.notes)) if state.backend else ""
    return JobReport(
        steps=steps, paused=state.paused, paused_step=state.current if state.paused else 0,
        ssh=address(state), sandbox=sandbox,
    )  # fmt: skip


def address(state: JobState) -> SshAddress | None:
    """How to enter, and until when at the latest somebody must."""
    if state.ssh is None or not state.offers:
        return None
    expires = rfc3339(state.deadline) if state.deadline else ""
    return msgspec.structs.replace(state.ssh, expires=expires)
