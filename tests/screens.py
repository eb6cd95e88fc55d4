"""The ssh client in a terminal, as a person has it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence

from tests.patience import PATIENCE
from tests.ssh_support import World


class Screen:
    """The ssh client in a terminal of its own, as a person has it."""

    def __init__(self, args: Sequence[str], columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        self.size(columns, rows)
        self.client = subprocess.Popen(
            args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = b""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data
        self._changed.set()

    def size(self, columns: int, rows: int) -> None:
        """Make the window so large."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> str:
        """Until the screen shows a text. Returns what came before it, which is forgotten."""
        try:
            async with asyncio.timeout(PATIENCE):
                while text.encode() not in self.text:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on the screen: {self.text.decode(errors='replace')}") from None
        before, _, self.text = self.text.partition(text.encode())
        return before.decode(errors="replace")

    async def cut(self) -> None:
        """The client dies, as with its machine."""
        self.client.kill()
        await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().run_in_executor(None, self.client.wait)

    def close(self) -> None:
        if self.client.poll() is None:
            self.client.kill()
            self.client.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@contextlib.contextmanager
def screen(
    made: World, *command: str, options: Sequence[str] = (), columns: int = 80, rows: int = 24
) -> Iterator[Screen]:
    """A person's terminal with ssh in it, for the length of a block."""
    shown = Screen([*made.ssh_args(*options), *command], columns, rows)
    try:
        yield shown
    finally:
        shown.close()
