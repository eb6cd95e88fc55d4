"""Drives one attempt of one job: feeds what happens to `decide`, writes it to the journal, does what is asked.

Every change of the state is one synchronous step (machine.py): decide, append, begin the instructions. The process
may be killed at any await; a new runner on the same folder folds the journal, adopts the sandbox, and begins again
whatever is not known to be done (all of it is idempotent).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pitstop_common.messages import Result, Resume, SshAddress, Stop
from pitstop_common.spec import JobSpec, RunSpec
from pitstop_sandbox import control
from pitstop_sandbox.backends.port import Backend, BackendError, Sandbox, SandboxSpec
from pitstop_sandbox.checkout import CheckoutTry
from pitstop_sandbox.events import (
    Create,
    Instruction,
    Kill,
    Remove,
    Removed,
    Reply,
    Resumed,
    RunStep,
    SandboxBroke,
    SandboxMade,
    SandboxSaid,
    Say,
    SessionClosed,
    StepEnded,
    Stopped,
)
from pitstop_sandbox.model import JobState, begin
from pitstop_sandbox.outbox import Identity, Outbox
from pitstop_sandbox.ports import CastSink, FactSink, LogSink
from pitstop_sandbox.sessions import Sessions
from pitstop_sandbox.settings import Settings
from pitstop_sandbox.steps import execute, github
from pitstop_sandbox.steps.folder import Tampered
from pitstop_sandbox.steps.pump import Progress
from pitstop_sandbox.steps.secret_values import SecretValues
from pitstop_sandbox.transitions import Status

_log = logging.getLogger(__name__)
_DRAIN_SECONDS: Final = 5.0
"""How long the output of a killed step is waited for."""
_OVER: Final = (Status.FINISHING, Status.FINISHED)


class JobRunner(Sessions):
    """One attempt of a job, from the claim to the stored `job.finished`. Implements `ports.SessionHost`."""

    def __init__(
        self,
        run: RunSpec,
        job: JobSpec,
        attempt: int,
        folder: Path,
        backend: Backend,
        facts: FactSink,
        logs: LogSink,
        identity: Identity,
        address: Callable[[str], SshAddress | None],
        *,
        settings: Settings | None = None,
        cause: str = "",
        secrets: Mapping[str, str] = MappingProxyType({}),
        say: Callable[[str], None] | None = None,
        casts: CastSink | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: the host's own folder for this attempt; the same one after a restart. `address`: how to enter a
        job, by its id; None: nobody can. `cause`: id of the message that started it. `secrets`: variables whose
        values are hidden in the log. `say`: shows a text at open shells when a pause begins or ends (whoever ends
        connections says so itself). `casts`: where terminals are recorded that are to be; None: nowhere.
        `clock`: seconds since the epoch."""
        self._settings = settings or Settings()
        self._folder = folder
        self._backend = backend
        self._address = address
        self._secrets = SecretValues(secrets)
        self._say = say or (lambda text: None)
        self._resumed = False
        self._creating: asyncio.Task[None] | None = None
        self._try: execute.Try | None = None
        self._trying: asyncio.Task[None] | None = None
        self._control = control.Control(folder / "job")
        start = begin(run, job, attempt, cause=cause, grace=self._settings.grace)
        outbox = Outbox(facts, logs, identity, clock, casts)
        super().__init__(start, folder / "journal", outbox, clock, self._settings.wishes)

    # -- what others may ask ---------------------------------------------------------------------------------------

    @property
    def state(self) -> JobState:
        """The job as it is now. Frozen."""
        return self._job

    @property
    def finished(self) -> Result | None:
        """The result once `job.finished` is stored; None before."""
        return self._job.result or None if self._job.status is Status.FINISHED else None

    async def run(self) -> None:
        """Drives the job to its end; returns when `job.finished` is stored. Cancelled, it lets go: the sandbox and
        its processes go on, and another runner on the same folder takes over. Raises JournalError when another
        process has the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._progress = Progress(self._folder / "progress")
        try:
            await self._live_through()
        finally:
            self._stop_saying()
            self._shells.close()
            self._control.aclose()
            self._progress.close()

    async def stop(self, command: Stop) -> None:
        """End the job with the result of the command. Returns when that is written down, or the job is over."""
        if await self._ready():
            self._apply(
                Stopped(result=command.result, reason=command.reason, notice=command.notice, cause=command.cause)
            )

    async def resume(self, command: Resume) -> None:
        """End the pause, if there is one. Returns when that is written down, or the job is over."""
        if await self._ready():
            self._take_exports()
            self._apply(Resumed(reason=command.reason, notice=command.notice, cause=command.cause))

    # -- what the machine asks -------------------------------------------------------------------------------------

    async def _prepare(self, *, resumed: bool) -> None:
        self._resumed = resumed
        for name in ("work", "job", "bin"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self._folder}/{name}", 0o755)  # noqa: PTH102
        control.install(self._folder / "bin")
        self._begin_loop(self._ledger.keep())
        self._begin_loop(self._recordings.keep())
        if resumed:
            self._recordings.restore()
            await self._take_over()
            self._recordings.end_others(lambda process: self._shells.of(process) is not None)

    def _perform(self, instruction: Instruction) -> None:
        match instruction:
            case Create():
                self._creating = self._begin(self._create())
            case RunStep(step, _, asker):
                self._trying = self._begin(self._run_step(step, asker))
            case Kill(_, _, force) if self._try is not None:
                self._begin(self._kill(self._try, force))
            case Remove():
                self._begin(self._remove())
            case Say(text):
                self._say(text)
            case Reply():
                self._begin(self._answered(instruction))
            case _:
                pass  # sent by the machine; and a step not yet begun looks for itself whether it is to end

    def _workspace(self) -> str:
        return self._settings.workspace

    # -- sandbox ---------------------------------------------------------------------------------------------------

    def _spec(self) -> SandboxSpec:
        return SandboxSpec(
            id=f"{self._job.job.job}.{self._job.attempt}",
            folder=self._folder,
            workspace=self._settings.workspace,
            image=self._job.job.image,
            limits=self._settings.limits,
        )

    async def _take_over(self) -> None:
        if self._job.status is not Status.PREPARING and not self._job.removed:
            self._sandbox = await self._backend.adopt(self._spec())
            if self._sandbox is not None:
                self._begin_loop(self._watch(self._sandbox))
            elif self._job.status is not Status.FINISHING:
                self._apply(
                    SandboxBroke(code="host_restarted", message="the sandbox did not outlive the host's restart")
                )
        for session in self._job.sessions:
            self._apply(SessionClosed(session=session, reason="disconnect"))
        if self._sandbox is not None and self._job.detached:
            await self._adopt_shells(self._sandbox)

    def _hear(self, text: str) -> None:
        if self._job.status is Status.PREPARING:
            self._apply(SandboxSaid(text=text))

    async def _create(self) -> None:
        try:
            # An earlier process may have been killed between making the sandbox and writing that down.
            found = await self._backend.adopt(self._spec()) if self._resumed else None
            sandbox = self._sandbox = found or await self._backend.create(self._spec(), self._hear)
            shells = await sandbox.shells()
            if self._job.job.pause.any:  # somebody may be inside before the first step, which makes them anew
                github.prepare(self._folder / "job")
        except (BackendError, Tampered, OSError) as error:
            code = error.code if isinstance(error, BackendError) else "job_folder"
            self._apply(SandboxBroke(code=code, message=str(error)))
            return
        if self._job.status is not Status.PREPARING:
            return
        self._begin_loop(self._watch(sandbox))
        ssh, name = self._address(self._job.job.job), self._backend.name
        self._apply(SandboxMade(backend=name, image=sandbox.image, notes=sandbox.notes, shells=shells,
                                env=dict(sandbox.env), ssh=ssh))  # fmt: skip

    async def _watch(self, sandbox: Sandbox) -> None:
        fault = await sandbox.lost()
        if self._job.status not in _OVER:
            self._apply(SandboxBroke(code=fault.code, message=str(fault)))

    async def _remove(self) -> None:
        if self._creating is not None:
            await self._creating
        await self._let_step_end()
        await self._let_askers_out()
        try:
            sandbox = self._sandbox or await self._backend.adopt(self._spec())
            if sandbox is not None:
                await sandbox.remove()
        except BackendError as error:
            _log.warning("sandbox of %s not removed: %s", self._spec().id, error)
        self._ledger.close()
        await self._recordings.finish()
        self._apply(Removed())

    # -- steps -----------------------------------------------------------------------------------------------------

    async def _run_step(self, step: int, asker: str) -> None:
        attempt: execute.Try | None = None
        tries = self._job.step(step).tries
        if self._job.status in _OVER:
            return
        try:
            attempt = self._try = self._make_try(step, asker)
            if self._job.killing:
                await attempt.kill(force=self._job.killing == "kill")
            ended = await attempt.run()
        except BackendError as error:
            if error.code != "sandbox_lost":  # that one `_watch` tells, with the reason
                self._apply(SandboxBroke(code=error.code, message=str(error)))
            return
        except OSError as error:
            ended = StepEnded(step=step, tries=tries, error=f"the host could not run it: {error}")
        finally:
            self._try = None
            self._control.shown_to_the_end(asker)
        self._apply(self._secrets.ended(ended))
        if attempt is not None:
            attempt.forget()

    def _make_try(self, step: int, asker: str) -> execute.Try:
        state, tries, said = self._job, self._job.step(step).tries, self._job.number
        assert self._sandbox is not None

        async def send(first: int, lines: tuple[str, ...]) -> None:
            # What was said before the step stands before its output.
            await self._until(lambda: not self._job.outbox or self._job.outbox[0].number > said)
            await self._outbox.log(state, step, tries, first, lines)
            self._progress.set(step, tries, first + len(lines))
            if asker:
                self._control.show(asker, lines)

        async def summarise(lines: tuple[str, ...]) -> None:
            await self._outbox.log(state, step, tries, 0, lines, "summary")

        stored = self._progress.get(step, tries)
        plan = execute.plan(state, step, self._workspace(), self._folder / "job", self._secrets, stored)
        if plan.spec.kind == "run":
            return execute.ScriptTry(self._sandbox, plan, send, summarise)
        own = self._folder / "checkout"
        return CheckoutTry(self._sandbox, plan, send, state.run, own, self._workspace(), self._settings.checkout)

    async def _kill(self, attempt: execute.Try, force: bool) -> None:
        with contextlib.suppress(BackendError):
            await attempt.kill(force=force)

    async def _let_step_end(self) -> None:
        if self._trying is None or self._trying.done():
            return
        if self._try is not None:
            await self._kill(self._try, True)
        await asyncio.wait({self._trying}, timeout=_DRAIN_SECONDS)
        self._trying.cancel()
