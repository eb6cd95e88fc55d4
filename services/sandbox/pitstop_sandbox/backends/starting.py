"""Holder processes, from the host's side: started ahead of need, and reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Final

from pitstop_sandbox.holder.main import CONTROL_FD

END_SECONDS: Final = 10.0
_PACKAGES: Final = str(Path(__file__).parents[2])
_BOOT: Final = "import sys; sys.path.append(sys.argv[2]); from pitstop_sandbox.holder.main import main; main()"


class Ending:
    """Watches for the end of a process, and reaps it if it is a child of ours."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._gone = asyncio.Event()
        self._fd = -1
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:
            self._gone.set()
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._over)

    @property
    def is_over(self) -> bool:
        """Has it ended?"""
        return self._gone.is_set()

    async def wait(self) -> None:
        """Returns when it is gone, or after END_SECONDS."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._gone.wait()

    def close(self) -> None:
        """Watch no longer; who waits, waits no more."""
        self._gone.set()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _over(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        self.close()


class Spare:
    """A holder that was started and waits to be told what sandbox to make. It ends when its socket is closed."""

    def __init__(self, *, privileged: bool = False) -> None:
        """In a session of its own, with no file and no variable of this process. `privileged`: see `Holders`."""
        self.sock, theirs = socket.socketpair()
        argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(os.geteuid()), _PACKAGES]
        argv += ["privileged"] if privileged else []
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL_FD),
        ]
        with theirs:
            # A descriptor that is on its place already is not duplicated, and would be closed by the exec.
            theirs.set_inheritable(theirs.fileno() == CONTROL_FD)
            env = {"PATH": os.defpath, "LANG": "C.UTF-8"}
            pid = os.posix_spawn(sys.executable, argv, env, file_actions=actions, setsid=True)
        self.ending = Ending(pid)

    async def stop(self) -> None:
        """End it."""
        self.sock.close()
        await self.ending.wait()
