"""What must not happen while strangers talk nonsense: an exception that nobody meant, or a thing that stays."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from asyncssh.connection import SSHConnection

_OURS: Final = ("pitstop_", "asyncssh")
MORE_OBJECTS: Final = 300
"""Objects of ours and of asyncssh that may be there at the end beyond those at the first look: what is on its way."""
MORE_BYTES: Final = 24 * 1024 * 1024
"""Of resident memory: what an allocator keeps. A leak of 100 bytes a packet would be four times that in a million."""


class Fault(AssertionError):
    """Found something."""


class Watch(logging.Handler):
    """Hears what is logged as an error or with a traceback, what a loop could not give to anybody, and what asyncssh
    calls internal errors. `where` says what is being done."""

    def __init__(self) -> None:
        super().__init__()
        self.where = ""
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            text = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self._found(f"logged: {record.getMessage()}\n{text}")

    def unheard(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = "".join(traceback.format_exception(error)) if error else ""
        self._found(f"nobody took: {context.get('message')}\n{text}")

    def internal(self, exc_info: Any) -> None:
        self._found("internal error:\n" + "".join(traceback.format_exception(*exc_info)))

    def check(self) -> None:
        """Raises Fault with the first that was found."""
        if self.faults:
            raise Fault(f"{len(self.faults)} found; the first at {self.faults[0]}")

    def _found(self, what: str) -> None:
        self.faults.append(f"{self.where}: {what}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """For the length of a block."""
        made, known = pytest.MonkeyPatch(), SSHConnection.internal_error

        def internal_error(connection: SSHConnection, exc_info: Any = None, error_logger: Any = None) -> None:
            self.internal(exc_info or sys.exc_info())
            known(connection, exc_info, error_logger)

        made.setattr(SSHConnection, "internal_error", internal_error)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.unheard)
        root = logging.getLogger()
        others, root.handlers = root.handlers, [self]  # what keeps records keeps all that their texts were made of
        try:
            yield
        finally:
            root.handlers = others
            loop.set_exception_handler(None)
            made.undo()


class Amount(msgspec.Struct):
    """What is there."""

    tasks: int
    files: int
    memory: int
    objects: collections.Counter[str]


def amount() -> Amount:
    """After a collection."""
    gc.collect()
    objects = collections.Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
        if str(type(each).__module__).startswith(_OURS)
    )
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Amount(len(asyncio.all_tasks()), files, pages * os.sysconf("SC_PAGE_SIZE"), objects)


def grown(before: Amount, after: Amount) -> str:
    """What is left over; empty: nothing."""
    more = after.objects - before.objects
    if more.total() > MORE_OBJECTS:
        return f"objects: {more.most_common(5)}"
    if after.tasks > before.tasks or after.files > before.files:
        return f"tasks: {after.tasks} for {before.tasks}, files: {after.files} for {before.files}"
    if after.memory - before.memory > MORE_BYTES:
        return f"memory: {(after.memory - before.memory) / 1024 / 1024:.0f} MiB"
    return ""
