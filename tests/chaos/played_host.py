"""A sandbox host whose programs are played, and leave evidence: a line when a step begins, one when it ends.

Everything but the sandbox is real: this is the service with its in-memory backend (PITSTOP_SANDBOX=fake), given
programs that take their time. `sleep MS` and `exit CODE` are what a step's script may say.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from pitstop_common.lifecycle import Runtime, run
from pitstop_sandbox.backends.fake import FakeBackend, FakeMachine
from pitstop_sandbox.backends.played import Program, Running
from pitstop_sandbox.backends.port import Spawn
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.service import serve


class Evidence:
    """An append-only file that several processes write: each line is one write, and survives a kill -9."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def note(self, what: str, running: Running) -> None:
        """`<begin|end> <job>.<attempt> <process> <pid> <monotonic seconds>`."""
        line = f"{what} {running.folder.name} {running.request.id} {os.getpid()} {time.monotonic():.6f}\n"
        os.write(self._fd, line.encode())

    def resolve(self, request: Spawn) -> Program:
        """Every step is its script, played; beside them there are shells kept ready for people, who never come."""
        return self._play if request.mode == "spool" else _shell

    async def _play(self, running: Running) -> int:
        self.note("begin", running)
        code = 0
        script = running.folder / "job" / "script" / Path(running.request.argv[-1]).name
        for line in script.read_text().splitlines():
            verb, _, number = line.partition(" ")
            if verb == "sleep":
                await asyncio.sleep(int(number) / 1000)
            elif verb == "exit":
                code = int(number)
        self.note("end", running)
        return code


async def _shell(_running: Running) -> int:
    await asyncio.Event().wait()
    return 0


async def main(runtime: Runtime, config: SandboxConfig) -> None:
    """The service's own loop, with that backend."""
    evidence = Evidence(Path(os.environ["CHAOS_EVIDENCE"]))
    await serve(runtime, config, FakeBackend(FakeMachine(evidence.resolve)))


if __name__ == "__main__":
    run("sandbox", SandboxConfig, main)
