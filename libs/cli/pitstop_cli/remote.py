"""OpenSSH as a child that runs one command: its streams, and which ended: the command, or the connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_cli.exits import SYSTEM, TRANSPORT, Failure

KEPT: Final = 4 * 1024 * 1024
"""Of each stream, bytes."""
_PIECE: Final = 65_536
_STATUS: Final = re.compile(r"rtype exit-(status|signal)")
"""What OpenSSH logs when the other end says how the command ended: 255 alone may be the command's own."""
_DEBUG: Final = "debug1:"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. `reached`: the other end said so; else `why` has what ssh said. `seconds` of time."""

    exit_code: int
    reached: bool
    seconds: float
    signalled: bool = False
    timed_out: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a program; `exit_code` is null where the command has none."""
        exited = not (self.signalled or self.timed_out)
        return {
            "exit_code": self.exit_code if exited else None, "signalled": self.signalled, "timed_out": self.timed_out,
            **_text("stdout", self.stdout), **_text("stderr", self.stderr), "truncated": self.truncated,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


class Remote:
    """One command. `stdin`: it reads ours. `keep`: its output is kept; else it goes where ours does."""

    def __init__(self, argv: Sequence[str], line: str, *, stdin: bool, keep: bool) -> None:
        if shutil.which("ssh") is None:
            raise Failure("there is no ssh here", next="apt install openssh-client", code=SYSTEM)
        self._argv, self._line, self._stdin, self._keep = argv, line, stdin, keep
        self._out, self._err = bytearray(), bytearray()
        self._truncated = False
        self._began = time.monotonic()

    async def run(self) -> Ended:
        """Until it has ended. Cancelled: ssh is ended, and with it the command."""
        with tempfile.TemporaryDirectory(prefix="pitstop-exec-") as folder:
            log = Path(folder, "log")
            process = await asyncio.create_subprocess_exec(
                *self._command(log), stdin=None if self._stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._keep else None,
                stderr=asyncio.subprocess.PIPE if self._keep else None,
            )  # fmt: skip
            try:
                await asyncio.gather(self._take(process.stdout, self._out), self._take(process.stderr, self._err))
                code = await process.wait()
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                    await process.wait()
            return self._ended(code, log.read_text(errors="replace") if log.exists() else "")

    def given_up(self) -> Ended:
        """After `run` was cancelled."""
        return self._end(exit_code=TRANSPORT, reached=False, timed_out=True)

    def _command(self, log: Path) -> list[str]:
        program, *rest = self._argv
        return [program, "-v", "-E", str(log), "-T", "-o", "BatchMode=yes", *rest, "--", self._line]

    async def _take(self, stream: asyncio.StreamReader | None, kept: bytearray) -> None:
        while stream is not None and (piece := await stream.read(_PIECE)):
            room = KEPT - len(kept)
            kept += piece[:room]
            self._truncated = self._truncated or len(piece) > room

    def _ended(self, code: int, log: str) -> Ended:
        status = _STATUS.search(log)
        said = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(_DEBUG)]
        why = " ".join([self._err.decode(errors="replace").strip(), *said[-2:]]).strip()
        return self._end(
            exit_code=code, reached=status is not None, signalled=bool(status) and "exit-signal" in log, why=why
        )

    def _end(self, **how: Any) -> Ended:
        return Ended(
            **how, seconds=time.monotonic() - self._began, stdout=bytes(self._out), stderr=bytes(self._err),
            truncated=self._truncated,
        )  # fmt: skip


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
