"""The `Backend` port: what a host process needs of the thing that makes sandboxes.

Everything happens inside one sandbox, as the job's user, without privilege. A process belongs to the sandbox, not to
the host process: it goes on when the host process is restarted, and is found again by `adopt`. Cancelling a task that
awaits a method here never ends a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

Hear = Callable[[str], None]
"""Told a line, as it happens."""


def silent(_: str) -> None:
    """Hears nothing."""


class BackendError(Exception):
    """A sandbox could not be made or used. `code` is stable; the text says what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on everything in a sandbox. Bytes; 0 = as the backend has it: namespaces none, docker its own."""

    processes: int = 1024
    open_files: int = 65536
    memory: int = 0
    cpus: float = 0
    disk: int = 0
    """Of all files but the job's folder."""
    file_size: int = 10 * 2**30


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to make. `id` is `<job>.<attempt>`. `folder` is the job's folder on the host; inside it the backend keeps
    `holder/` (its own: sockets, spools, out of the sandbox's reach), and the sandbox sees `work/` as `workspace`
    (read-write), `job/` as /run/pitstop (read-write) and `bin/` as /opt/pitstop/bin (read-only)."""

    id: str
    folder: Path
    workspace: str = "/home/runner/work"
    user: str = "runner"
    hostname: str = "pitstop"
    image: str = ""
    limits: Limits = Limits()


class Spawn(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start. `id` is unique in the sandbox: starting the same id again returns the process there is.
    The same id again for a `pty` gives one more descriptor of its master, for `pipes` none.
    mode `spool`: no stdin, stdout and stderr merged into `holder/<id>.out` on the host, kept by the holder.
    mode `pipes`: stdin, stdout, stderr as separate pipes; mode `pty`: a new session with a controlling terminal, whose
    `modes` (RFC 4254 section 8: opcode, value) are set before the program runs."""

    id: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    mode: Literal["spool", "pipes", "pty"]
    columns: int = 80
    rows: int = 24
    modes: Sequence[tuple[int, int]] = ()
    umask: int = 0o022
    keep: bool = False
    """Of a pty: what it showed last is kept in `holder/<id>.scrollback`. While no host process is there, the holder
    reads it, so that the program goes on."""


class Hit(msgspec.Struct, frozen=True):
    """A limit of the sandbox that was met. memory: a process was killed for it; `limit` in bytes. processes: one could
    not be started; `limit`: of how many. disk: it is full; `limit` is 0."""

    kind: Literal["memory", "processes", "disk"]
    limit: int = 0


class Exit(msgspec.Struct, frozen=True):
    """How a process ended: an exit code, or the signal that killed it (then code is 128 + signal). `hits`: of mode
    `spool`, what the sandbox met while it ran, where the backend knows."""

    code: int
    signal: int = 0
    hits: tuple[Hit, ...] = ()


class Tcp(msgspec.Struct, frozen=True):
    """A name or address and a port, as they are inside."""

    host: str
    port: int


class Unix(msgspec.Struct, frozen=True):
    """The path of a socket, as it is inside."""

    path: str


class Accepted(msgspec.Struct, frozen=True):
    """A connection that came in. `fd` is the caller's, who closes it; `host` and `port` are empty for a unix socket."""

    fd: int
    host: str = ""
    port: int = 0


class Listener(Protocol):
    """A listening socket inside."""

    @property
    def port(self) -> int:
        """Of TCP; 0 for a unix socket."""

    async def accept(self) -> Accepted:
        """The next connection. Raises BackendError when there will be none."""

    async def aclose(self) -> None:
        """Listen no more. A unix socket's path is removed, with the folder that was made for it. Idempotent."""


class Process(Protocol):
    """A running or ended process of a sandbox."""

    @property
    def id(self) -> str:
        """The id it was spawned under."""

    @property
    def fds(self) -> tuple[int, ...]:
        """Owned by the caller, who closes them: pty -> (master,), pipes -> (stdin, stdout, stderr), spool -> ()."""

    @property
    def spool(self) -> Path | None:
        """Where the output of a `spool` process is, growing. None for the other modes."""

    @property
    def scrollback(self) -> Path | None:
        """Where the last bytes of a kept terminal are (`holder.scrollback`). None for the other modes."""

    async def wait(self) -> Exit:
        """The exit. When it returns, all output of the main process is in the spool. May be awaited by many.
        Raises BackendError `sandbox_lost` if the sandbox went away first."""

    async def grown(self, beyond: int) -> int:
        """The size of the spool in bytes, as soon as it is over `beyond` or the process has ended. 0 without a spool.
        Raises BackendError `sandbox_lost`."""

    async def signal(self, number: int, *, tree: bool = False) -> int:
        """Send a signal to the process, or to its whole process group; in mode `spool` to all that it has started,
        also what called setsid or was left by its parent, and also when it has ended itself. No error if nothing is
        there. Returns how many of that tree there were (number 0 only counts them); 0 in the other modes."""

    async def resize(self, columns: int, rows: int) -> None:
        """The new size of a pty."""


class Sandbox(Protocol):
    """One sandbox and its holder."""

    @property
    def id(self) -> str:
        """As in its spec."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know: no network, no root inside. For the job's header and the entry notice."""

    @property
    def image(self) -> str:
        """The image that it is made of, with its digest; empty where there are none."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that the image itself brings; what a job sets stands above it."""

    def give(self, path: Path) -> None:
        """Make the job's user the owner of what the host process put there: a file or tree below `folder`. Follows
        no link. Not needed for what was there at `create`."""

    async def spawn(self, request: Spawn) -> Process:
        """Start a process. Raises BackendError `spawn_failed` (no such program, no such folder)."""

    async def dial(self, to: Tcp | Unix) -> int:
        """A connection made by the job's user inside, in its network and its file system: the descriptor of a stream
        socket, which the caller closes. Names are looked up inside. Raises BackendError `unreachable`."""

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        """Listen inside, as the job's user. TCP: on the loopback addresses of the sandbox, whatever `at.host` says;
        port 0 takes a free one. A unix socket is its user's alone; with `folder` the folder that is to hold it is
        made, and may be entered by nobody else. Raises BackendError `unreachable`."""

    async def processes(self) -> dict[str, Process]:
        """All processes ever spawned here by id, ended ones too. Used after `adopt`; their `fds` are ()."""

    async def cpu_seconds(self) -> Mapping[str, float]:
        """The CPU time so far of each process that runs, by id, with all that it started. Raises BackendError."""

    async def shells(self) -> tuple[str, ...]:
        """The interactive shells this image has, best first: a subset of ("bash", "sh"), with full paths."""

    async def lost(self) -> BackendError:
        """Returns when the sandbox or its holder has died by itself: `sandbox_lost`, or `engine_lost` when what runs
        the sandboxes of this machine went away with it."""

    async def remove(self) -> None:
        """Kill everything inside, end the holder, and remove what the backend made. Idempotent."""


class Backend(Protocol):
    """A kind of sandbox."""

    @property
    def name(self) -> str:
        """For metrics and `sandbox.ready`."""

    async def probe(self) -> tuple[bool, str]:
        """Can it work here? The text says what it found, or what to do."""

    async def create(self, spec: SandboxSpec, say: Hear = silent) -> Sandbox:
        """A new sandbox, ready for `spawn`. `say` hears what takes long, for the job's log. Raises BackendError; then
        nothing is left of it. `sandbox_exists`: there is one in this folder, and it stays."""

    async def adopt(self, spec: SandboxSpec) -> Sandbox | None:
        """The sandbox that an earlier host process made in this folder; None when it is gone."""

    def alive(self) -> None:
        """This host is seen by the others: what holds its sandboxes need not end them. Said with each heartbeat that is
        stored. Where it is not said for too long (the host process is stopped, or hangs), they end."""

    def expects(self, jobs: bool) -> None:
        """Jobs may come from now on, so what shortens their start may be made ahead; or none will, and it ends."""

    async def mine(self, root: Path) -> dict[Path, str]:
        """All sandboxes of this kind that live in folders below `root`, `root/*/<folder>`: their folders and ids.
        Whoever else's are not among them."""

    async def aclose(self) -> None:
        """Let go. Sandboxes and their processes go on."""
