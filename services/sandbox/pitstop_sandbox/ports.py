"""What the job runner needs of the outside, and what the SSH side needs of the job runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from pitstop_common.messages import CastChunk, HostFact, LogChunk, UseKind
from pitstop_sandbox.backends.port import Listener, Process, Tcp, Unix
from pitstop_sandbox.channels.screen import Recorder
from pitstop_sandbox.channels.shells import Line, Shell


class FactSink(Protocol):
    """Where facts go. Returns when the fact is stored; retries for ever on its own, in order for one job."""

    async def publish(self, fact: HostFact) -> None:
        """Store a fact; the same `id` again is harmless."""


class LogSink(Protocol):
    """Where log chunks go."""

    async def publish(self, org: str, run: str, chunk: LogChunk) -> None:
        """Store a chunk. Returns when stored; slow stores slow the reader, never lose a line."""


class CastSink(Protocol):
    """Where recordings of terminals go."""

    async def publish(self, org: str, run: str, chunk: CastChunk) -> None:
        """Store a piece; the same one again is harmless. Returns when stored."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a session gets at its start: the step's surroundings. `notice` is for interactive shells."""

    env: Mapping[str, str]
    cwd: str
    shell: str
    """Full path inside: bash, or sh."""
    umask: int
    notice: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A person's connection, let in."""

    id: str
    user: str
    fingerprint: str
    client: str
    via: str = ""
    """The certificate of its key, in words."""


class Pty(msgspec.Struct, frozen=True):
    """A terminal that a client asks for. `modes`: opcode and value, RFC 4254 section 8."""

    columns: int = 80
    rows: int = 24
    modes: Sequence[tuple[int, int]] = ()


class Use(msgspec.Struct, frozen=True):
    """What somebody does inside. `what`: the command, or the place that is dialled or listened on, or what is asked of
    the files at `paths`."""

    kind: UseKind
    what: str = ""
    paths: tuple[str, ...] = ()


class SessionHost(Protocol):
    """The job, as its sessions see it. One per running job; found by job id in the host service."""

    @property
    def job(self) -> str:
        """The job's id."""

    async def opened(self, session: Session) -> None:
        """A connection was let in. (The runner publishes ssh.connected.)"""

    async def closed(self, session: Session, reason: str) -> None:
        """A connection ended: exit, disconnect, expired, stopped. Called once for each `opened`."""

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        """Where a new channel of this session starts."""

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        """Start a process for a channel: on a terminal, or on pipes. Interactive shells are those of
        `shell_started`."""

    async def dial(self, to: Tcp | Unix) -> int:
        """As `Sandbox.dial`."""

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        """As `Sandbox.listen`."""

    def used(self, session: Session, use: Use) -> None:
        """Whatever is opened inside is told here, before it is."""

    def record(self, session: Session, process: Process, shell: Shell | None, title: str,
               size: tuple[int, int]) -> Recorder | None:  # fmt: skip
        """Have a terminal recorded from now on, if it is not; who is to hear what it shows."""

    def unrecord(self, process: str) -> None:
        """A terminal that was recorded is gone."""

    def shell_started(self, session: Session, process: Process, line: Line) -> Shell | None:
        """An interactive shell runs (a session channel with a pty and no command). None: it ends with its line."""

    async def take_shell(self, session: Session, line: Line) -> Shell | None:
        """The shell that this person left behind, and is with again now. None: there is none."""

    def shell_left(self, shell: Shell) -> None:
        """Its connection is gone, and it goes on."""

    async def shell_ended(self, session: Session, process: Process, *, by_itself: bool) -> None:
        """It ended. `by_itself`: the shell exited while its connection lived; the last such end resumes the job."""

    def key(self) -> None:
        """Somebody typed: input on any channel."""

    def output(self) -> None:
        """Something was shown on any channel."""

    def moved(self, size: int) -> None:
        """Bytes went through sftp, a forward or an agent, either way."""
