"""How a process of a channel is started in the surroundings of the step, and the shell that is kept ready for it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.backends.port import BackendError, Process, Sandbox, Spawn
from pitstop_sandbox.channels.ready import Ready, Wish, Wishes, end_all
from pitstop_sandbox.machine import Machine
from pitstop_sandbox.model import STARTED_AHEAD, JobState
from pitstop_sandbox.notices import entry
from pitstop_sandbox.outbox import Outbox
from pitstop_sandbox.ports import Entry, Pty, Session
from pitstop_sandbox.steps import environment, github
from pitstop_sandbox.steps.secret_values import SecretValues
from pitstop_sandbox.transitions import Status

_log = logging.getLogger(__name__)

CHANNEL: Final = "ssh-"
"""How the ids of channels' processes begin."""
_REMEMBERED: Final = 64
_QUIET: Final = 2.0
"""After somebody ran something else than a shell, until one is made ready again, seconds: commands come in rows."""


class Entering(Machine):
    """The part of a job runner that opens processes for people."""

    _folder: Path
    _secrets: SecretValues

    def __init__(
        self, start: JobState, journal: Path, outbox: Outbox, clock: Callable[[], float], wishes: Wishes | None
    ) -> None:
        """`wishes`: what people asked for the last time, on this host. None: no shell is kept ready."""
        super().__init__(start, journal, outbox, clock)
        self._sandbox: Sandbox | None = None
        self._wishes = wishes
        self._channels = 0
        self._prefix = secrets.token_hex(4)
        self._commands: list[Process] = []
        self._ready_shell = Ready()
        self._stirred = float("-inf")

    @abstractmethod
    def _workspace(self) -> str:
        """Where the workspace is, inside."""

    @abstractmethod
    def _somebody_opens(self) -> None:
        """A process is about to be started for somebody."""

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        """The surroundings of the step in progress, or of the one at the pause, with all exports so far."""
        return self._entry(session.id, interactive=interactive)

    def _entry(self, session: str, *, interactive: bool) -> Entry:
        state, workspace = self._job, self._workspace()
        spec = state.spec(state.current) if state.current else None
        return Entry(
            env=environment.session_env(self._surroundings(), session),
            cwd=environment.folder(spec, workspace),
            shell=next(iter(state.shells), "/bin/sh"),
            umask=environment.UMASK,
            notice=entry(state) if interactive else "",
        )

    def _surroundings(self) -> dict[str, str]:
        exports, _ = github.collect(self._folder / "job")
        return environment.surroundings(self._job, self._job.current, self._workspace(), exports, self._secrets)

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        """Start a channel's process. `argv` of the shell alone is made an interactive shell that reads no profile; the
        one that is kept ready is taken for it, if it is the same. Where the step's folder does not exist (that may be
        why it failed) it starts in the workspace, or in /."""
        sandbox = self._made()
        self._somebody_opens()
        self._channels += 1
        request = _request(f"{CHANNEL}{self._prefix}-{self._channels}", session.id, argv, entry, pty, env)
        ready = self._take_ready(session.user, request, env)
        if ready is not None:
            return ready
        process = await self._spawn(sandbox, request)
        if pty is None:
            self._commands = [*self._commands[-_REMEMBERED:], process]
        return process

    async def _spawn(self, sandbox: Sandbox, request: Spawn) -> Process:
        folders = list(dict.fromkeys((request.cwd, self._workspace(), "/")))
        for number, cwd in enumerate(folders):
            id = f"{request.id}-{number}" if number else request.id
            try:
                return await sandbox.spawn(msgspec.structs.replace(request, id=id, cwd=cwd))
            except BackendError as error:
                if error.code != "spawn_failed" or cwd == folders[-1]:
                    raise
        raise AssertionError("unreachable")

    def _made(self) -> Sandbox:
        if self._sandbox is None:
            raise BackendError("no_sandbox", "the sandbox is not ready yet")
        return self._sandbox

    # -- the shell that is kept ready ------------------------------------------------------------------------------

    async def _keep_ready(self) -> None:
        """While the job is paused and nobody is inside, a shell waits for its person; it ends with the pause."""
        await self._begun.wait()
        if self._sandbox is not None:
            await end_all(self._sandbox, lambda process: self._job.has_shell(process))
        try:
            while self._wishes is not None:
                await self._until(lambda: self._lonely() or self._stale())
                if self._stale():
                    await self._ready_shell.drop()
                elif (left := self._stirred + _QUIET - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(left)
                else:
                    await self._make_ready(self._wishes)
                    await self._until(lambda: not self._lonely())
        finally:
            self._ready_shell.close()

    async def _make_ready(self, wishes: Wishes) -> None:
        if self._ready_shell.there:
            return
        self._channels += 1
        id = f"{STARTED_AHEAD}{self._prefix}-{self._channels}"
        entry, wish = self._entry(id, interactive=False), wishes.of(self._job.run.actor)
        env = {name: value for name, value in wish.env.items() if name == "TERM" or name not in entry.env}
        try:
            await self._ready_shell.start(
                self._made(), _request(id, id, [entry.shell], entry, Pty(modes=wish.modes), env)
            )
        except BackendError as error:  # nothing is lost: whoever comes gets a new one
            _log.info("no shell is ready in %s: %s", self._job.job.job, error)

    def _lonely(self) -> bool:
        return self._job.status is Status.PAUSED and not self._job.sessions and self._sandbox is not None

    def _stale(self) -> bool:
        return self._ready_shell.there and self._job.status is not Status.PAUSED

    def _take_ready(self, user: str, request: Spawn, env: Mapping[str, str]) -> Process | None:
        """The shell that is ready, if this is what is asked for; else none is, for what runs now may change what it
        was made for."""
        found = self._ready_shell.take(request) if request.keep and self._job.status is Status.PAUSED else None
        if request.keep and self._wishes is not None and "SSH_AUTH_SOCK" not in env:
            self._wishes.remember(user, Wish(dict(env), request.modes))
        elif not request.keep:
            self._stirred = asyncio.get_running_loop().time()
        if found is None and self._ready_shell.there and self._live:
            self._begin(self._ready_shell.drop())
        return found


def _request(id: str, session: str, argv: Sequence[str], entry: Entry, pty: Pty | None,
             env: Mapping[str, str]) -> Spawn:  # fmt: skip
    terminal = pty or Pty()
    return Spawn(
        id=id,
        argv=environment.session_argv(argv, entry.shell, interactive=pty is not None),
        env={**entry.env, **env, **environment.session_env({}, session)},
        cwd=entry.cwd,
        mode="pty" if pty else "pipes",
        columns=terminal.columns,
        rows=terminal.rows,
        modes=terminal.modes,
        umask=entry.umask,
        keep=pty is not None and list(argv) == [entry.shell],
    )
