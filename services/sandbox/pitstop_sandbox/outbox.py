"""How what a job says leaves the host: facts to one sink, log chunks to the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from pitstop_common.messages import LogChunk, SshActive
from pitstop_sandbox.events import Note, Outgoing, Publish
from pitstop_sandbox.model import JobState
from pitstop_sandbox.notices import rfc3339
from pitstop_sandbox.ports import CastSink, FactSink, LogSink


class Identity(msgspec.Struct, frozen=True):
    """Whose facts these are: the claimant's name and incarnation."""

    host: str
    incarnation: str


class Outbox:
    """Sends for one job. Each call returns when what it was given is stored."""

    def __init__(self, facts: FactSink, logs: LogSink, identity: Identity, clock: Callable[[], float],
                 casts: CastSink | None = None) -> None:  # fmt: skip
        self._facts = facts
        self._logs = logs
        self._identity = identity
        self._clock = clock
        self.casts = casts

    async def send(self, state: JobState, item: Outgoing) -> None:
        """One item of the state's outbox."""
        if isinstance(item, Publish):
            await self._publish(item)
        elif isinstance(item, Note):
            await self.log(state, 0, 1, item.first, item.lines, "notice")
        else:
            await self.log(state, 0, 1, item.first, (), "end")

    async def log(
        self,
        state: JobState,
        step: int,
        tries: int,
        first: int,
        lines: tuple[str, ...],
        kind: Literal["output", "notice", "summary", "end"] = "output",
    ) -> None:
        """Lines of a step (0: Pitstop's own). `first` counts the lines of this try from 0."""
        chunk = LogChunk(
            job=state.job.job,
            attempt=state.attempt,
            step=step,
            tries=tries,
            name=state.spec(step).name if step else "",
            first=first,
            lines=lines,
            kind=kind,
            time=rfc3339(self._clock()),
        )
        await self._logs.publish(state.run.org, state.run.run, chunk)

    async def _publish(self, item: Publish) -> None:
        whose = {"host": self._identity.host, "incarnation": self._identity.incarnation}
        fact = msgspec.structs.replace(item.fact, **whose)
        if isinstance(fact, SshActive):
            fact = msgspec.structs.replace(fact, age=round(max(0.0, self._clock() - item.at), 3))
        await self._facts.publish(fact)
