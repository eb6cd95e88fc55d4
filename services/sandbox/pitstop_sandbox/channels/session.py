"""One session channel as its client sees it: requests in, output and an exit status out."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Final

import asyncssh

from pitstop_sandbox.backends.port import BackendError, Process
from pitstop_sandbox.channels.display import READ_FOR, RECORDED, back, fail, greeting, redraw, show, tell, warn
from pitstop_sandbox.channels.ending import Ending
from pitstop_sandbox.channels.forwards import Forwards
from pitstop_sandbox.channels.request import Request
from pitstop_sandbox.channels.running import Begun, Running
from pitstop_sandbox.channels.sftp_watch import SftpWatch
from pitstop_sandbox.channels.shells import Line
from pitstop_sandbox.channels.waiting import track
from pitstop_sandbox.ports import Entry, Pty, Session, SessionHost, Use

log = logging.getLogger(__name__)

_EARLY_SIGNALS: Final = 16
"""Kept for a process that does not run yet."""


class ChannelSession(asyncssh.SSHServerSession[bytes]):
    """Serves one channel. `tasks` holds what still runs for it, so that its connection can wait."""

    def __init__(
        self, host: SessionHost, person: Session, forwards: Forwards, line: Line, tasks: set[asyncio.Task[None]]
    ) -> None:
        self._host = host
        self._person = person
        self._forwards = forwards
        self._line = line
        self._tasks = tasks
        self._channel: asyncssh.SSHServerChannel[bytes]
        self._request = Request()
        self._watch = SftpWatch(lambda asked: host.used(person, Use("file", asked.what, asked.paths)))
        self._early: list[bytes] = []
        self._signals: list[int] = []
        self._eof = False
        self._running: Running | None = None
        self._holds: set[str] = set()
        self.working = False
        """Its process runs, or what it wrote is on its way."""
        self._lost = asyncio.Event()
        self._ending = Ending(self._lost)

    # -- what asyncssh calls ---------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan

    def pty_requested(self, _term: str, size: tuple[int, int, int, int], _modes: object) -> bool:
        """A terminal comes with the shell or command; if the login allows none, they go on without."""
        self._request.resize(size[0], size[1])
        return self._forwards.rules.bounds.pty

    def shell_requested(self) -> bool:
        """A shell."""
        return True

    def exec_requested(self, text: str) -> bool:
        """A command, for the step's shell."""
        return self._request.execute(text, terminal=self._terminal)

    def subsystem_requested(self, subsystem: str) -> bool:
        """There is one."""
        return self._request.subsystem(subsystem)

    def session_started(self) -> None:
        """The request was granted. What the project does not allow is granted too, so that the reason can be shown:
        a refused request carries no text."""
        self.working = True
        self._request.force(self._forwards.rules.bounds.command)
        track(self._tasks, self._serve())

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        """The client typed or sent something."""
        if self._running is not None:
            self._pass(self._running, data)
        else:
            self._early.append(data)
            self._channel.pause_reading()
        if self._request.sftp:
            self._host.moved(len(data))
        else:
            self._host.key()

    def eof_received(self) -> bool:
        """The client sends no more; the channel stays open for output."""
        self._eof = True
        self._end_input()
        return True

    def terminal_size_changed(self, width: int, height: int, _pixwidth: int, _pixheight: int) -> None:
        """The client's window has another size."""
        self._request.resize(width, height)
        if self._running is not None:
            self._running.resize(self._request.size)

    def signal_received(self, name: str) -> None:
        """A signal for the process and its group."""
        number = getattr(signal, f"SIG{name}", None)
        if not isinstance(number, signal.Signals):
            return
        if self._running is not None:
            track(self._tasks, self._running.process.signal(number, tree=True))
        elif len(self._signals) < _EARLY_SIGNALS:
            self._signals.append(number)

    def break_received(self, _msec: int) -> bool:
        """What a serial line's break is for: to interrupt (RFC 4335)."""
        self.signal_received("INT")
        return True

    def pause_writing(self) -> None:
        """The client's window is full."""
        self.hold("channel")

    def resume_writing(self) -> None:
        """There is room in it again."""
        self.release("channel")
        self._ending.drained()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The channel is closed, by whomever."""
        self._lost.set()
        self._ending.drained()
        if self._running is not None:
            self._running.close()

    # -- what the connection calls ---------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """The channel is closed."""
        return self._lost.is_set()

    def hold(self, why: str) -> None:
        """Read no more from the process for now."""
        self._holds.add(why)
        if self._running is not None:
            self._running.hold(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        self._holds.discard(why)
        if self._running is not None:
            self._running.release(why)

    def notice(self, text: str) -> bool:
        """Show a line, if this is a terminal that somebody looks at; whether it is."""
        looked_at = self._running is not None and self._interactive
        if looked_at:
            show(self._channel, "\n" + text.rstrip("\n") + "\n")
        return looked_at

    def warn(self, text: str) -> None:
        """Show a warning to whoever looks: on a terminal without spoiling its screen for good, else on stderr."""
        running = self._running
        if running is None or self._lost.is_set():
            return
        warn(self._channel, text, self._request.size, running.screen)
        if self._terminal and running.screen.alternate:
            track(self._tasks, redraw(running.process, lambda: self._request.size, self._lost, READ_FOR))

    # -- the work --------------------------------------------------------------------------------------------------

    @property
    def _terminal(self) -> bool:
        return self._channel.get_terminal_type() is not None

    @property
    def _recorded(self) -> bool:
        return self._terminal and self._forwards.rules.recording

    @property
    def _notes(self) -> list[str]:
        return [*self._forwards.notes, *([RECORDED] if self._recorded else [])]

    @property
    def _interactive(self) -> bool:
        return self._terminal and self._request.shell

    async def _serve(self) -> None:
        try:
            if fault := self._request.fault(self._forwards.rules):
                fail(self._channel, fault)
                return
            self._host.used(self._person, self._request.use)
            await self._accompany(await self._begin())
        except BackendError as error:
            fail(self._channel, str(error))
        except Exception:
            log.exception("a channel of %s broke", self._host.job)
            fail(self._channel, "internal error of the sandbox host")
        finally:
            self.working = False

    async def _begin(self) -> Begun:
        """The shell that this person left behind, or a new process."""
        if self._interactive and not self._request.new:
            shell = await self._host.take_shell(self._person, self._line)
            if shell is not None:
                return Begun(shell.process, (shell.join(self._line),), shell, greeting(*self._notes) + back(shell))
        entry = await self._host.entry(self._person, interactive=self._interactive)
        process = await self._spawn(entry)
        if not self._interactive:
            return Begun(process, process.fds)
        shell = self._host.shell_started(self._person, process, self._line)
        return Begun(process, process.fds, shell, greeting(entry.notice, *self._notes))

    async def _accompany(self, begun: Begun) -> None:
        """From the process's first output, which follows the greeting, to its exit status; or until its client is
        lost, and it goes on without."""
        process, shell = begun.process, begun.shell
        running = self._attach(begun)
        by_itself = False
        try:
            if begun.greeting and not self._lost.is_set():
                self._channel.write(begun.greeting)
            elif not self._interactive and not self._request.sftp:
                tell(self._channel, self._notes)
            by_itself = await running.ended(self._lost)
            if self._interactive and (by_itself or shell is None):
                await self._host.shell_ended(self._person, process, by_itself=by_itself)
            if not self._lost.is_set():
                await self._ending.tell(self._channel, running, self._request)
        finally:
            running.let_go()
            if shell is not None and not by_itself:
                self._host.shell_left(shell)
            elif self._recorded:
                self._host.unrecord(process.id)

    async def _spawn(self, entry: Entry) -> Process:
        terminal, modes = self._channel.get_terminal_type(), self._channel.get_terminal_modes()
        env = self._request.env(self._channel.get_environment(), entry.env, terminal)
        if self._forwards.agent_path:
            env["SSH_AUTH_SOCK"] = self._forwards.agent_path
        return await self._host.spawn(
            self._person,
            self._request.argv(entry.shell),
            entry,
            pty=Pty(*self._request.size, tuple(modes.items())) if terminal is not None else None,
            env=env,
        )

    def _attach(self, begun: Begun) -> Running:
        running = self._running = Running(
            begun.process, self._channel, self._shown, begun.fds, terminal=self._terminal, shell=begun.shell
        )
        for why in self._holds:
            running.hold(why)
        if self._recorded:
            title, size = self._request.title, self._request.size
            running.screen.recorder = self._host.record(self._person, begun.process, begun.shell, title, size)
        if self._lost.is_set():
            running.close()
            return running
        if self._terminal and running.screen.alternate:
            track(self._tasks, redraw(begun.process, lambda: self._request.size, self._lost))
        elif self._terminal:
            running.resize(self._request.size)
        for number in self._signals:
            track(self._tasks, begun.process.signal(number, tree=True))
        early, self._early = self._early, []
        for data in early:
            self._pass(running, data)
        if early:
            self._channel.resume_reading()
        if self._eof:
            self._end_input()
        return running

    def _pass(self, running: Running, data: bytes) -> None:
        if self._request.sftp:
            self._watch.feed(data)
        running.input.write(data)

    def _shown(self, size: int) -> None:
        if self._request.sftp:
            self._host.moved(size)
        else:
            self._host.output()

    def _end_input(self) -> None:
        # The end of a terminal's input is a character, which the client sends itself.
        if self._running is not None and not self._terminal:
            self._running.input.end()
