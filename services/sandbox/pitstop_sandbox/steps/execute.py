"""Runs one try of a `run` step in the sandbox, or goes on with one that an earlier host process began."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from pitstop_common.spec import StepSpec
from pitstop_sandbox.backends.port import BackendError, Exit, Process, Sandbox, Spawn
from pitstop_sandbox.events import StepEnded
from pitstop_sandbox.model import JobState
from pitstop_sandbox.steps import endings, environment, github, results
from pitstop_sandbox.steps.folder import Tampered
from pitstop_sandbox.steps.lines import Lines
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.steps.pump import Pump, Send
from pitstop_sandbox.steps.secret_values import SecretValues

_LOOK_SECONDS: Final = 0.1


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a try needs. `stored`: lines of its output that are in the log already."""

    spec: StepSpec
    tries: int
    env: Mapping[str, str]
    cwd: str
    shells: Sequence[str]
    masks: Sequence[str]
    job_folder: Path
    stored: int = 0
    room: int = 0
    """For outputs, bytes."""

    @property
    def id(self) -> str:
        """The process id in the sandbox: the same try is never started twice."""
        return f"step-{self.spec.index}-{self.tries}"


def plan(state: JobState, step: int, workspace: str, job_folder: Path, secrets: SecretValues, stored: int) -> Plan:
    """The plan of the try that the state has in progress."""
    spec = state.spec(step)
    return Plan(
        spec=spec,
        tries=state.step(step).tries,
        env=environment.surroundings(state, step, workspace, secrets=secrets),
        cwd=environment.folder(spec, workspace),
        shells=state.shells,
        masks=secrets.all_masks(state.masks),
        job_folder=job_folder,
        stored=stored,
        room=results.room(state, step),
    )


class Try(Protocol):
    """A try of a step that runs."""

    async def run(self) -> StepEnded:
        """Returns when it is over and its output stored. Raises BackendError when the sandbox is lost."""

    async def kill(self, *, force: bool) -> None:
        """End it and what it started: TERM, or KILL."""

    def forget(self) -> None:
        """Its end is written down: remove its raw output, in which nothing is masked, from the disk."""


Summarise = Callable[[tuple[str, ...]], Awaitable[None]]
"""Stores the step's summary, in lines."""


class ScriptTry:
    """A `run` step."""

    def __init__(self, sandbox: Sandbox, plan: Plan, send: Send, summarise: Summarise) -> None:
        self._sandbox = sandbox
        self._plan = plan
        self._send = send
        self._summarise = summarise
        self._process: Process | None = None
        self._signal = 0

    async def run(self) -> StepEnded:
        """See Try."""
        plan = self._plan
        masks = Masks(plan.masks)
        lines = Lines(masks)
        try:
            process = self._process = await self._start()
        except (BackendError, Tampered, OSError) as error:
            if isinstance(error, BackendError) and error.code != "spawn_failed":
                raise
            told = masks.hide(f"it could not be started: {error}")
            return StepEnded(step=plan.spec.index, tries=plan.tries, error=told)
        if self._signal:
            await process.signal(self._signal, tree=True)
        if process.spool is None:
            raise BackendError("no_spool", f"process {process.id} has no spool")
        pump = Pump(process.spool, lines, self._send, process.grown, stored=plan.stored)
        ended = await self._to_the_end(process, pump)
        exports, warnings = github.collect(plan.job_folder)
        left = results.collect(plan.job_folder, masks, plan.room)
        said = [f"::warning::{warning}" for warning in (*warnings, *left.warnings)]
        if said := [*said, *endings.words(ended, asked=bool(self._signal))]:
            await pump.extra([masks.hide(line) for line in said])
        if left.summary:
            await self._summarise(left.summary)
        learnt = tuple(value for value in masks.values if value not in plan.masks)
        return StepEnded(step=plan.spec.index, tries=plan.tries, exit_code=ended.code, exports=exports, masks=learnt,
                         outputs=left.outputs, tail=tuple(lines.tail))  # fmt: skip

    async def kill(self, *, force: bool) -> None:
        """See Try."""
        self._signal = signal.SIGKILL if force else signal.SIGTERM
        if self._process is not None:
            await self._process.signal(self._signal, tree=True)

    def forget(self) -> None:
        """See Try."""
        if self._process is not None and self._process.spool is not None:
            with contextlib.suppress(OSError):
                self._process.spool.unlink()

    async def _to_the_end(self, process: Process, pump: Pump) -> Exit:
        pumping = asyncio.create_task(pump.run())
        ended = asyncio.create_task(self._all_ended(process))
        try:
            await asyncio.wait({ended, pumping}, return_when=asyncio.FIRST_COMPLETED)
            if pumping.done():
                pumping.result()
            try:
                return await ended
            finally:
                pump.end()
                await pumping
        finally:
            for task in (pumping, ended):
                task.cancel()
            await asyncio.gather(pumping, ended, return_exceptions=True)

    async def _all_ended(self, process: Process) -> Exit:
        """What a step leaves in the background goes on, but not when the step was ended: then all that it started has
        the grace time to end, too, and is killed (`kill` comes again, with force, when it is over)."""
        ended = await process.wait()
        while self._signal == signal.SIGTERM and await process.signal(0, tree=True):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK_SECONDS)
        if self._signal:
            await process.signal(signal.SIGKILL, tree=True)
        return ended

    async def _start(self) -> Process:
        plan = self._plan
        there = (await self._sandbox.processes()).get(plan.id)
        if there is not None:
            return there
        script = environment.script_name(plan.spec, plan.tries)
        github.prepare(plan.job_folder, script, plan.spec.run)
        inside = f"{environment.JOB_FOLDER}/script/{script}"
        argv = environment.interpreter(plan.spec, inside, plan.shells)
        return await self._sandbox.spawn(
            Spawn(id=plan.id, argv=argv, env=plan.env, cwd=plan.cwd, mode="spool", umask=environment.UMASK)
        )
