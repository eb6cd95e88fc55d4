"""The sessions of a job, as `ports.SessionHost` has them: who is in, in which surroundings, and how active."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pitstop_common.messages import CastChunk
from pitstop_sandbox import control
from pitstop_sandbox.activity import Activity
from pitstop_sandbox.backends.port import BackendError, Listener, Process, Sandbox, Tcp, Unix
from pitstop_sandbox.casts.recordings import Recordings
from pitstop_sandbox.channels.ready import Wishes
from pitstop_sandbox.channels.screen import Recorder
from pitstop_sandbox.channels.shells import Line, Shell, Shells
from pitstop_sandbox.entering import CHANNEL, Entering
from pitstop_sandbox.events import (
    Active,
    Asked,
    Exported,
    Replied,
    Reply,
    SessionClosed,
    SessionOpened,
    ShellEnded,
    ShellStarted,
)
from pitstop_sandbox.flow import PAUSING
from pitstop_sandbox.ledger import Ledger, harmless
from pitstop_sandbox.model import JobState
from pitstop_sandbox.outbox import Outbox
from pitstop_sandbox.ports import Session, Use
from pitstop_sandbox.steps import github
from pitstop_sandbox.transitions import Status

LET_OUT: Final = 1.0
"""From an answer to `pitstop-step` until what is inside is killed: its asker is to end by itself, seconds."""


class Sessions(Entering):
    """The half of a job runner that its people talk to, from outside and from inside."""

    _control: control.Control

    def __init__(
        self, start: JobState, journal: Path, outbox: Outbox, clock: Callable[[], float], wishes: Wishes | None
    ) -> None:
        super().__init__(start, journal, outbox, clock, wishes)
        self._activity = Activity(start.run.session.idle_timeout)
        self._saying: asyncio.TimerHandle | None = None
        self._shells = Shells(self._shell_gone)
        self._answered_at = 0.0
        casts, run = outbox.casts, start.run

        async def store(chunk: CastChunk) -> None:
            assert casts is not None
            await casts.publish(run.org, run.run, chunk)

        self._recordings = Recordings(
            journal.parent / "casts", store if casts else None,
            lambda: self._secrets.all_masks(self._job.masks), clock,
        )  # fmt: skip
        self._ledger = Ledger(self._apply, lambda: self._secrets.all_masks(self._job.masks), clock)

    @property
    def job(self) -> str:
        """The job's id."""
        return self._job.job.job

    async def opened(self, session: Session) -> None:
        """A connection was let in; `ssh.connected` follows."""
        if not await self._ready():
            return
        self._apply(
            SessionOpened(
                session=session.id,
                user=session.user,
                fingerprint=session.fingerprint,
                client=session.client,
                via=session.via,
            )
        )

    async def closed(self, session: Session, reason: str) -> None:
        """A connection ended; `ssh.closed` follows. Nothing happens when the runner has ended already."""
        if self._live:
            if reason == "expired":  # nobody is to come back: what they left open goes with them
                self._begin(self._shells.hang_up())
            self._apply(SessionClosed(session=session.id, reason=reason))

    def _somebody_opens(self) -> None:
        self._activity.opened(self._clock())
        self._say_active()

    async def dial(self, to: Tcp | Unix) -> int:
        """A connection inside, for a forward."""
        return await self._made().dial(to)

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        """A listener inside, for a forward or an agent."""
        return await self._made().listen(at, folder=folder)

    def used(self, session: Session, use: Use) -> None:
        """Somebody opens something inside; `ssh.used` follows."""
        if self._live:
            self._ledger.used(session, use)

    def record(self, session: Session, process: Process, shell: Shell | None, title: str,
               size: tuple[int, int]) -> Recorder | None:  # fmt: skip
        """Have a terminal recorded from now on, if it is not."""
        found = self._recordings.of(process.id)
        if found is None and self._live:
            head = CastChunk(
                job=self.job, attempt=self._job.attempt, recording=process.id.removeprefix(CHANNEL), index=-1,
                user=session.user, session=session.id, started=self._clock(), columns=size[0], rows=size[1],
                title=harmless(title, self._recordings.masks()), reached=shell.position if shell else 0,
            )  # fmt: skip
            found = self._recordings.begin(process.id, head)
            if found is not None:
                self.used(session, Use("recording", head.recording))
                if shell is not None:
                    found.follow(shell)
        return found

    def unrecord(self, process: str) -> None:
        """A terminal that was recorded is gone."""
        if (found := self._recordings.of(process)) is not None:
            found.end()

    def shell_started(self, session: Session, process: Process, line: Line) -> Shell | None:
        """An interactive shell runs."""
        if self._live:
            self._apply(ShellStarted(session=session.id, process=process.id))
        return self._shells.open(process, session.user, line)

    async def take_shell(self, session: Session, line: Line) -> Shell | None:
        """The shell this person left behind; they are with it again."""
        shell = await self._shells.take(session.user, line)
        if shell is not None and self._live:
            self._activity.opened(self._clock())
            self._apply(ShellStarted(session=session.id, process=shell.process.id))
            self._say_active()
        return shell

    def shell_left(self, shell: Shell) -> None:
        """It goes on without its connection."""
        self._shells.leave(shell)

    async def _adopt_shells(self, sandbox: Sandbox) -> None:
        """Those of an earlier process of this host. One that has ended meanwhile has done so by itself."""
        for process in await self._shells.adopt(sandbox, self._job.detached):
            self._apply(ShellEnded(session="", process=process, by_itself=True))
        for process in self._job.detached:
            shell, recording = self._shells.of(process), self._recordings.of(process)
            if shell is not None and recording is not None:
                recording.follow(shell)
                shell.screen.recorder = recording

    def _shell_gone(self, process: str) -> None:
        self.unrecord(process)
        if self._live:
            self._take_exports()
            self._apply(ShellEnded(session="", process=process, by_itself=True))

    async def shell_ended(self, session: Session, process: Process, *, by_itself: bool) -> None:
        """It ended; the last one that does so by itself resumes the job."""
        self._shells.forget(process.id)
        if self._live:
            if by_itself:
                self._take_exports()
            self._apply(ShellEnded(session=session.id, process=process.id, by_itself=by_itself))

    def key(self) -> None:
        """Somebody typed."""
        now = self._clock()
        self._activity.key(now)
        if self._saying is not None:
            if self._activity.due(now) != 0:
                return
            self._stop_saying()
        self._say_active()

    def output(self) -> None:
        """Something was shown."""
        self._activity.output(self._clock())
        self._say_active()

    async def _measure(self) -> None:
        while True:
            await self._until(lambda: bool(self._job.sessions))
            await asyncio.sleep(self._activity.interval)
            if self._sandbox is None:
                continue
            with contextlib.suppress(BackendError):
                used = await self._sandbox.cpu_seconds()
                self._activity.cpu(self._clock(), {id: cpu for id, cpu in used.items() if self._is_of_people(id)})
                self._say_active()

    def _is_of_people(self, process: str) -> bool:
        """What they started through ssh, or took of what was ready, or run with `pitstop-step retry`."""
        mine = process.startswith(CHANNEL) or self._job.has_shell(process)
        return mine or self._job.status is Status.RETRYING

    def moved(self, size: int) -> None:
        """Bytes went through sftp, a forward or an agent."""
        self._activity.moved(size, self._clock())
        self._say_active()

    def warned(self) -> None:
        """The people inside were warned of the session's end."""
        self._activity.warned(self._clock())
        self._stop_saying()
        self._say_active()

    def _say_active(self) -> None:
        if self._saying is not None or not self._live:
            return
        due = self._activity.due(self._clock())
        if due is None:
            return
        if due > 0:
            self._saying = asyncio.get_running_loop().call_later(due, self._say_later)
        else:
            self._apply(Active(at=self._activity.say(self._clock())))

    def _say_later(self) -> None:
        self._saying = None
        self._say_active()

    def _stop_saying(self) -> None:
        if self._saying is not None:
            self._saying.cancel()
            self._saying = None

    # -- requests from inside --------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            await self._until(self._listening)
            self._control.open()
            while self._listening():
                for request in self._control.requests():
                    self._request(request)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(control.POLL_SECONDS):
                        await self._until(lambda: not self._listening())
            self._control.close()

    def _listening(self) -> bool:
        return self._job.status in PAUSING or (bool(self._job.sessions) and self._job.status is Status.STEPPING)

    def _request(self, request: control.Request) -> None:
        answer = control.answer(request, self._job, self._clock(), self._surroundings())
        if isinstance(answer, Asked):
            self._take_exports()
            self._apply(answer)
        elif answer is not None:
            self._control.reply(answer.id, answer.code, answer.text)

    async def _answered(self, reply: Reply) -> None:
        self._control.reply(reply.id, reply.code, reply.text)
        self._answered_at = self._clock()
        self._apply(Replied(id=reply.id))

    async def _let_askers_out(self) -> None:
        """`ssh JOB pitstop-step continue` has an exit status: it is not killed by what it set going."""
        left = self._answered_at + LET_OUT - self._clock()
        if left > 0 and self._commands:
            ends = [asyncio.ensure_future(process.wait()) for process in self._commands]
            await asyncio.wait(ends, timeout=left)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def _take_exports(self) -> None:
        if self._job.status in (Status.PAUSED, Status.WAITING):
            found, _ = github.collect(self._folder / "job")
            exports = self._secrets.exports(found)
            if exports != self._job.layer:
                self._apply(Exported(exports=exports))
