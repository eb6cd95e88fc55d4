"""What a person reads of us on a session channel."""

from __future__ import annotations

import contextlib
from asyncio import Event
from collections.abc import Callable, Iterable
from typing import Final

import asyncssh

from pitstop_sandbox.backends.port import Process
from pitstop_sandbox.channels.replay import replay
from pitstop_sandbox.channels.screen import Screen, warning
from pitstop_sandbox.channels.shells import Shell
from pitstop_sandbox.channels.waiting import passed

Channel = asyncssh.SSHServerChannel[bytes]

_END: Final = "\n"
RECORDED: Final = "[pitstop] what this terminal shows is recorded (not what you type unseen); secrets are masked"
"""Told at the entry."""
NO_PROCESS: Final = 126
"""Exit status when the process could not be started, or its sandbox was lost."""
READ_FOR: Final = 5.0
"""How long a warning stays in a full-screen program, seconds."""


def show(channel: Channel, text: str) -> None:
    """Lines on a terminal."""
    with contextlib.suppress(OSError):
        channel.write(text.replace("\n", "\r\n").encode())


def tell(channel: Channel, lines: Iterable[str]) -> None:
    """Lines beside what a command prints."""
    with contextlib.suppress(OSError):
        for line in lines:
            channel.write_stderr(f"{line}\n".encode())


def warn(channel: Channel, text: str, size: tuple[int, int], screen: Screen) -> None:
    """A warning: on a row of its terminal (of `size` columns and rows), or on stderr without one."""
    with contextlib.suppress(OSError):
        if channel.get_terminal_type() is None:
            channel.write_stderr(f"pitstop: {text}\n".encode())
        else:
            channel.write(warning(text, size[1], alternate=screen.alternate))


def greeting(*notices: str) -> bytes:
    """What a new shell shows first."""
    return "".join(f"{text.rstrip(_END)}{_END}" for text in notices if text).replace(_END, "\r\n").encode()


def back(shell: Shell) -> bytes:
    """What a shell shows to the person who comes back to it."""
    note = greeting("[pitstop] back in the shell you left; another one: ssh -t … new")
    return note + replay(shell.scrollback(), alternate=shell.screen.alternate)


async def redraw(process: Process, size: Callable[[], tuple[int, int]], lost: Event, after: float = 0) -> None:
    """A program draws its screen again when its window changes. `after`: what it covers was read, seconds."""
    if await passed(lost, after):
        return
    columns, rows = size()
    await process.resize(columns, max(1, rows - 1))
    await process.resize(*size())


def fail(channel: Channel, text: str) -> None:
    """The last words of a channel whose process could not be, or broke."""
    with contextlib.suppress(OSError):
        line = f"pitstop: {text}\n"
        if channel.get_terminal_type() is not None:
            line = line.replace("\n", "\r\n")
        channel.write_stderr(line.encode())
        channel.exit(NO_PROCESS)
