"""What waits for something: readable descriptors, and children that end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable


class Loop:
    """A poll loop of one thread."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        wake, self._wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self.watch(wake, lambda: self._drain(wake))

    def watch(self, fd: int, handler: Callable[[], None], *, read: bool = True, write: bool = False) -> None:
        """Call `handler` when there is something to read (or with `write`: room to write)."""
        self._handlers[fd] = handler
        self._poll.register(fd, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))

    def forget(self, fd: int) -> None:
        """Before it is closed."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def turn(self, seconds: float) -> None:
        """Wait at most so long, then call the handlers of what is ready."""
        for fd, _ in self._poll.poll(max(0, seconds) * 1000):
            if handler := self._handlers.get(fd):
                handler()

    @staticmethod
    def _drain(wake: int) -> None:
        try:
            os.read(wake, 4096)
        except BlockingIOError:
            return


def reap() -> list[tuple[int, int]]:
    """Children that have ended: pid and wait status."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))
