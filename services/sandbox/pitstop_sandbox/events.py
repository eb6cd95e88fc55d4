"""What happens to a job (events; the journal holds them) and what is to be done about it (instructions). Data only.

Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common.messages import HostFact, Result, SshAddress, UseKind

Verb = Literal["continue", "retry", "skip", "fail", "next", "abort", "pause"]


# -- events: what the journal holds ------------------------------------------------------------------------------


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of what the journal holds."""


class SandboxMade(_Event, frozen=True, kw_only=True):
    """The sandbox stands. `shells` are full paths, best first; `env` is what the image brings."""

    backend: str
    image: str = ""
    notes: tuple[str, ...] = ()
    shells: tuple[str, ...] = ()
    env: dict[str, str] = {}
    ssh: SshAddress | None = None


class SandboxSaid(_Event, frozen=True, kw_only=True):
    """What takes long while the sandbox is made."""

    text: str


class SandboxBroke(_Event, frozen=True, kw_only=True):
    """There is no sandbox (any more). `code` is stable."""

    code: str
    message: str


class Exports(msgspec.Struct, frozen=True, kw_only=True):
    """What a step left in GITHUB_ENV and GITHUB_PATH (in the order written)."""

    env: dict[str, str] = {}
    path: tuple[str, ...] = ()


class StepEnded(_Event, frozen=True, kw_only=True):
    """A try of a step is over, and all its output is stored. `error`: it could not be started, and why.
    `outputs`: masked. `masks`: values to hide from now on. `tail`: the last lines of output."""

    step: int
    tries: int
    exit_code: int | None = None
    error: str = ""
    exports: Exports = Exports()
    outputs: dict[str, str] = {}
    masks: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()


class Exported(_Event, frozen=True, kw_only=True):
    """The files of the step at the pause, read again: somebody inside may have added to them."""

    exports: Exports


class Tick(_Event, frozen=True, kw_only=True):
    """A deadline of `decide.deadline` may have passed."""


class SessionOpened(_Event, frozen=True, kw_only=True):
    """Somebody came in."""

    session: str
    user: str
    fingerprint: str = ""
    client: str = ""
    via: str = ""


class SessionClosed(_Event, frozen=True, kw_only=True):
    """A connection ended: exit, disconnect, expired, stopped."""

    session: str
    reason: str


class ShellStarted(_Event, frozen=True, kw_only=True):
    """An interactive shell runs; `process` is its id in the sandbox."""

    session: str
    process: str


class ShellEnded(_Event, frozen=True, kw_only=True):
    """An interactive shell ended; `by_itself`: its connection was alive."""

    session: str
    process: str
    by_itself: bool


class Active(_Event, frozen=True, kw_only=True):
    """Somebody was active at `at`."""

    at: float


class Used(_Event, frozen=True, kw_only=True):
    """Somebody opens something inside, or has opened it `count` times. `what` is masked and bounded. `named`: of
    many operations on files, what each was."""

    session: str
    user: str
    kind: UseKind
    what: str = ""
    count: int = 1
    named: tuple[str, ...] = ()


class Asked(_Event, frozen=True, kw_only=True):
    """`pitstop-step` inside asks for something. `id` is unique: the same one again is answered, not done again."""

    id: str
    verb: Verb
    session: str = ""


class Stopped(_Event, frozen=True, kw_only=True):
    """The scheduler (or the host) ends the job with this result."""

    result: Result
    reason: str = ""
    notice: str = ""
    cause: str = ""


class Resumed(_Event, frozen=True, kw_only=True):
    """The scheduler ends the pause."""

    reason: str = ""
    notice: str = ""
    cause: str = ""


class PauseWanted(_Event, frozen=True, kw_only=True):
    """The scheduler has it pause when the step in progress ends; `off`: not any more."""

    revision: int
    by: str = ""
    off: bool = False
    cause: str = ""


class Stored(_Event, frozen=True, kw_only=True):
    """Everything of the outbox up to `number` is stored."""

    number: int


class Replied(_Event, frozen=True, kw_only=True):
    """The answer to `id` lies where the asker looks for it."""

    id: str


class Removed(_Event, frozen=True, kw_only=True):
    """Nothing of the sandbox is left."""


Event = (
    SandboxMade | SandboxSaid | SandboxBroke | StepEnded | Exported | Tick | SessionOpened | SessionClosed
    | ShellStarted | ShellEnded | Active | Used | Asked | Stopped | Resumed | PauseWanted | Stored | Replied | Removed
)  # fmt: skip


# -- instructions: what the runner does ----------------------------------------------------------------------------


class Create(msgspec.Struct, frozen=True):
    """Make the sandbox, or adopt the one there is."""


class RunStep(msgspec.Struct, frozen=True):
    """Run a try of a step, or go on with it. `asker` is shown its output (empty: nobody waits for it)."""

    step: int
    tries: int
    asker: str = ""


class Kill(msgspec.Struct, frozen=True):
    """End the step in progress: all its process group."""

    step: int
    tries: int
    force: bool


class Remove(msgspec.Struct, frozen=True):
    """Kill everything and remove the sandbox."""


class Say(msgspec.Struct, frozen=True):
    """Tell the people at open shells. Best effort."""

    text: str


class Reply(msgspec.Struct, frozen=True):
    """Answer a request of `pitstop-step`."""

    id: str
    code: int
    text: str = ""


class Publish(msgspec.Struct, frozen=True):
    """Store a fact. `at` > 0: the fact's `age` counts from it."""

    number: int
    fact: HostFact
    at: float = 0


class Note(msgspec.Struct, frozen=True):
    """Store lines of Pitstop's own in the log; `first` counts them."""

    number: int
    first: int
    lines: tuple[str, ...]


class EndLog(msgspec.Struct, frozen=True):
    """Say that the log is complete."""

    number: int
    first: int


Outgoing = Publish | Note | EndLog
Instruction = Create | RunStep | Kill | Remove | Say | Reply | Outgoing
