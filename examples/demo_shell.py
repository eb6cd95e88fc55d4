"""OpenSSH on a terminal of its own: the demo types, waits for the prompt, and shows what a person would see."""

import asyncio
import codecs
import contextlib
import fcntl
import os
import re
import struct
import termios
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from demo_show import DemoError, Show, styled

_PROMPT: Final = re.compile(r"(?:pitstop:\S+)?\$ ")
_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")
_ROWS, _COLUMNS = 40, 200


def ssh_argv(address: dict[str, Any], folder: Path) -> list[str]:
    """Stock OpenSSH without any settings of this machine: our key, and the host key that Pitstop told us."""
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(address["known_hosts"] + "\n")
    options = (
        "IdentitiesOnly=yes", "IdentityAgent=none", f"UserKnownHostsFile={known_hosts}", "GlobalKnownHostsFile=none",
        "StrictHostKeyChecking=yes", "BatchMode=yes",
    )  # fmt: skip
    argv = ["ssh", "-F", "none", "-i", str(folder / "key"), "-p", str(address["port"])]
    return [*argv, *(part for option in options for part in ("-o", option)), f"{address['user']}@{address['host']}"]


class Shell:
    """A person's session. Made by `entered`."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int, show: Show) -> None:
        self._process, self._terminal, self._show = process, terminal, show
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._lines: list[str] = []
        self._rest = ""
        self._news = asyncio.Event()
        self._open = True
        asyncio.get_running_loop().add_reader(terminal, self._read)

    async def prompt(self) -> list[str]:
        """The lines seen until the shell waits for a command."""
        self._show.hold()
        await self._until(lambda: bool(_PROMPT.fullmatch(_seen(self._rest))), "a prompt")
        self._show.release()
        lines, self._lines = self._lines, []
        return lines

    async def type(self, command: str) -> list[str]:
        """Type a command; what it printed."""
        os.write(self._terminal, command.encode() + b"\n")
        self._show.hold()
        await self._until(lambda: bool(self._lines), "the echo of what was typed")
        return (await self.prompt())[1:]

    async def leave(self) -> int:
        """Type `exit`; the exit status of ssh."""
        os.write(self._terminal, b"exit\n")
        self._show.hold()
        return await self.ended()

    def look_away(self) -> None:
        """Show the prompt that waits; whatever comes next was not asked for."""
        self._line(self._rest)
        self._rest = ""

    async def ended(self) -> int:
        """The exit status of ssh, once it has ended by itself."""
        await self._until(lambda: not self._open, "the end of ssh")
        self._show.release()
        return await self._process.wait()

    @property
    def open(self) -> bool:
        """Does ssh still run."""
        return self._open

    async def _until(self, holds: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            self._news.clear()
            if not self._open:
                raise DemoError(f"ssh ended before {what} came; the last it showed: {self._lines[-1:]}")
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                raise DemoError(f"no sign of {what} in the shell within {seconds:g} s") from None

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other side of a terminal is closed
            data = b""
        self._news.set()
        if not data:
            asyncio.get_running_loop().remove_reader(self._terminal)
            self._open = False
            if self._rest:
                self.look_away()
            return
        *whole, self._rest = (self._rest + self._decode(data)).split("\n")
        for line in whole:
            self._line(line)

    def _line(self, raw: str) -> None:
        line = _seen(raw)
        self._lines.append(line)
        prompt = _PROMPT.match(line)
        at = prompt.end() if prompt else 0
        self._show.screen(styled(line[:at], "cyan") + styled(line[at:], "bold") if at else line)

    async def close(self) -> None:
        """End ssh if it runs, and let go of the terminal."""
        self._show.release()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)


def _seen(raw: str) -> str:
    """What a line shows in the end: a shell draws its prompt again when its window changes."""
    return _CONTROL.sub("", raw.rstrip("\r").rpartition("\r")[2])


@contextlib.asynccontextmanager
async def entered(address: dict[str, Any], folder: Path, show: Show) -> AsyncIterator[Shell]:
    """A shell in a job, for the length of a block. `address`: `ssh` of `job.paused`."""
    show.typed(f"{address['command']} -i key")
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *ssh_argv(address, folder), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"TERM": "xterm"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shell = Shell(process, ours, show)
    try:
        await shell.prompt()
        yield shell
    finally:
        await shell.close()
