"""Signals to processes of a sandbox, to their groups, and to all that they have started."""

from __future__ import annotations

import contextlib
import os
import signal

from pitstop_sandbox.holder import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

KILL_ROUNDS: Final = 5


def send(pid: int, number: int, *, group: bool) -> None:
    """To a child that is not reaped, or to its process group."""
    # The pid is that of a child that is not reaped: it cannot be another's.
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, number)


def send_to_session(leader: int, number: int) -> None:
    """To all that are left of the session."""
    # One of them may have forked while they were listed: whoever is to be killed is looked for again.
    for _ in range(KILL_ROUNDS if number == signal.SIGKILL else 1):
        members = kernel.session_members(leader)
        for pid in members:
            kernel.kill_exactly(pid, kernel.start_time(pid), number)
        if not members:
            return


def send_to_all(pid: int, started: int, mark: int, number: int) -> int:
    """To a process and all that it has started, which bear the mark: how many there are. Number 0 only counts them."""
    members: list[int] = []
    for _ in range(KILL_ROUNDS if number == signal.SIGKILL else 1):
        members = kernel.tree_members(pid, started, mark)
        for each in members if number else ():
            kernel.kill_exactly(each, kernel.start_time(each), number)
        if not members:
            break
    return len(members)
