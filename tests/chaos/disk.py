"""A disk of its own for JetStream, which can be full: a file system in memory, seen by nats-server alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, StreamConfig, StreamInfo

from pitstop_common import streams
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer, die_with_parent

_ROOMY: Final = "4g"
_MOUNT: Final = (
    f'mkdir -p "$0" && mount -t tmpfs -o size={_ROOMY},mode=700 tmpfs "$0" && echo mounted && exec sleep inf'
)
_TRIES: Final = 50
_FILLED: Final = (streams.IN, streams.DEC, streams.EVENTS, streams.WORK, streams.REQ)
_SLOW: Final = '\nwrite_deadline: "1s"\nmax_pending: 8MB\n'
"""A client that does not read is a slow consumer after a second, and not after ten."""


class Disk:
    """A mount namespace with the file system in it, kept by a process that sleeps. Only root can make one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that keeps it; 0: there is no such disk."""
        return self._keeper.pid if self._keeper else 0

    def start(self) -> bool:
        """False where this user may not mount: then JetStream lies in the folder itself."""
        keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, self._folder],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
        )  # fmt: skip
        assert keeper.stdout is not None
        with keeper.stdout as said:
            mounted = said.readline() == b"mounted\n"
        if mounted:
            self._keeper = keeper
        else:
            keeper.kill()
            keeper.wait()
        return mounted

    def enter(self, command: list[str]) -> list[str]:
        """The same command, for a process that sees the disk."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *command] if self.pid else command

    def fill(self) -> None:
        """From now on there is no room for one more block. AssertionError when it cannot be so."""
        for _ in range(_TRIES):  # what is in use may grow between the look and the mount
            found = os.statvfs(f"/proc/{self.pid}/root{self._folder}")
            if self._resize(str((found.f_blocks - found.f_bfree) * found.f_frsize)):
                return
        raise AssertionError("the disk cannot be filled")

    def free(self) -> None:
        """There is room again."""
        assert not self.pid or self._resize(_ROOMY)

    def close(self) -> None:
        """It goes with its last process."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
            self._keeper = None

    def _resize(self, size: str) -> bool:
        command = self.enter(["mount", "-o", f"remount,size={size}", str(self._folder)])
        return subprocess.run(command, capture_output=True).returncode == 0


class Server(EmbeddedServer):
    """nats-server on such a disk, and impatient with clients that do not read."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        super().__init__(folder)
        self._disk = disk

    def slow_consumers(self) -> int:
        """How many clients it has cut off because they did not read."""
        return (self.folder / "nats.log").read_text(errors="replace").count("Slow Consumer Detected")

    def _command(self, config: Path) -> list[str]:
        return self._disk.enter(super()._command(config))

    def _config(self) -> str:
        return super()._config() + _SLOW


async def full_streams(bus: Bus, seconds: float) -> None:
    """Streams take no more for a while, as an account's limit makes them: each message is refused."""
    kept = [(await _surely(bus.js.stream_info, name)).config for name in _FILLED]
    for config in kept:
        await _surely(bus.js.update_stream, config.evolve(max_bytes=1, discard=DiscardPolicy.NEW))
    await asyncio.sleep(seconds)
    for config in kept:
        await _surely(bus.js.update_stream, config)


async def _surely(ask: Callable[..., Awaitable[StreamInfo]], what: str | StreamConfig) -> StreamInfo:
    """The server may be killed at any time."""
    while True:
        try:
            return await ask(what)
        except (TimeoutError, NatsError):
            await asyncio.sleep(0.1)
