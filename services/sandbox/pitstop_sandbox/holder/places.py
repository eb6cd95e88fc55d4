"""What a holder needs of the kind of sandbox it holds: two rooms behind one door. `bwrap` (start, inside): the holder
makes it of namespaces. `runc` (container): the host process had the engine start it, and the holder takes it up."""

from __future__ import annotations

import socket

from pitstop_sandbox.holder import kernel, start
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.inside import Namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Place(Protocol):
        """A running sandbox, as processes and sockets of it are made."""

        def enter(self, request: Message, limits: Message, fds: tuple[int, ...]) -> socket.socket:
            """Start a process. `fds`: its stdin, stdout, stderr; none for a pty. The socket tells, one message each
            and in any order: `p<pid>` with the pty's master, `e<text>` when it failed. End of file: the program runs,
            or it failed. The process becomes the holder's own child. Raises OSError."""

        def visit(self) -> None:
            """Of a child of the holder, for good: into the network and the files of the sandbox, not among its
            processes; the job's user, no capability, not to be looked into. Raises OSError."""

    class Held(Protocol):
        """The life of a sandbox."""

        first: int
        pidfd: int

        def kill(self) -> None:
            """Process 1, and so every process of the sandbox. Waits for nothing."""

        def pids(self) -> list[list[int]]:
            """Pids and start times of what is to be killed when the holder is gone; process 1 first."""


def owner(plan: Message, number: int) -> start.Owner:
    """Whose the sandbox's files are on the host. Raises StartError."""
    if plan["kind"] == "runc":
        return start.Owner(plan["user"]["uid"], None, plan["user"]["gid"])
    chosen = start.choose_owner(plan["uids"], number)
    if not chosen.is_own:
        for path in (plan["folder"], *plan["give"]):
            start.give(path, chosen.uid)
    return chosen


def take(plan: Message, user: start.Owner) -> tuple[Held, Place]:
    """Make the sandbox, or take it up. Raises StartError, and then nothing that was made is left."""
    if plan["kind"] == "runc":
        from pitstop_sandbox.holder.container import Container

        container = Container(plan)
        kernel.set_dumpable(False)
        return container, container
    sandbox = start.start(plan, user)
    try:
        user.drop()
        kernel.set_dumpable(False)
        return sandbox, Namespaces(sandbox.first)
    except BaseException:
        start.kill_children()
        raise
