"""The checkout step: the host's git fetches into a folder out of the sandbox's reach; `tar` inside takes it in.

The repository is not trusted, and neither is the sandbox: git reads no configuration but ours, runs no hook and no
filter, asks nobody, speaks few protocols, and has limits of time and size. What it writes to its log becomes the
step's output, by the same way as any other step's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Final

from pitstop_common.spec import RunSpec
from pitstop_sandbox.backends.port import BackendError, Sandbox, Spawn
from pitstop_sandbox.events import StepEnded
from pitstop_sandbox.source.git import start, stop, wait
from pitstop_sandbox.source.trees import TreeMaker
from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, Wanted, credential_of, wanted
from pitstop_sandbox.steps import environment
from pitstop_sandbox.steps.execute import Plan
from pitstop_sandbox.steps.lines import Lines
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.steps.pump import Pump, Send

_LOOK_SECONDS: Final = 0.02
_CLEAN: Final = "rm -rf ./* ./.[!.]* ./..?*"
"""By the shell of the image: `find` may not be there."""


class CheckoutTry:
    """A checkout step. See `steps.execute.Try`."""

    def __init__(self, sandbox: Sandbox, plan: Plan, send: Send, run: RunSpec, folder: Path, workspace: str,
                 limits: CheckoutLimits) -> None:  # fmt: skip
        """`folder`: the host's own, for the fetched tree and the log of git."""
        self._sandbox = sandbox
        self._plan = plan
        self._send = send
        self._run = run
        self._folder = folder
        self._workspace = workspace
        self._limits = limits
        self._spool = folder / f"{plan.id}.out"
        self._work: asyncio.Task[None] | None = None
        self._killed = False

    async def run(self) -> StepEnded:
        """See Try."""
        plan = self._plan
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = self._spool
        lines = Lines(Masks(plan.masks))
        with spool.open("ab", buffering=0) as log:
            if log.tell():
                log.write(b"The host was restarted; the checkout begins again.\n")
            pump = Pump(spool, lines, self._send, _grown(spool), stored=plan.stored)
            pumping = asyncio.create_task(pump.run())
            try:
                code = await self._guarded(log)
                pump.end()
                await pumping
            finally:
                pumping.cancel()
                await asyncio.gather(pumping, return_exceptions=True)
        return StepEnded(step=plan.spec.index, tries=plan.tries, exit_code=code, tail=tuple(lines.tail))

    async def kill(self, *, force: bool) -> None:
        """See Try. Git is ours: it is ended at once."""
        self._killed = True
        if self._work is not None:
            self._work.cancel()

    def forget(self) -> None:
        """See Try."""
        with contextlib.suppress(OSError):
            self._spool.unlink()

    async def _guarded(self, log: IO[bytes]) -> int:
        self._work = asyncio.create_task(self._fetch_and_copy(log))
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._work
        except asyncio.CancelledError:
            if not self._killed:
                raise
            log.write(b"The checkout was ended.\n")
            return 143
        except TimeoutError:
            log.write(f"error: the checkout took longer than {self._limits.seconds:g} s\n".encode())
            return 1
        except CheckoutError as error:
            log.write(f"error: {error}\n".encode())
            return 1
        except FileNotFoundError as error:
            log.write(f"error: {error.filename or error}: not found; is git installed on this host?\n".encode())
            return 1
        except OSError as error:
            log.write(f"error: {error.strerror or error}\n".encode())
            return 1
        return 0

    async def _fetch_and_copy(self, log: IO[bytes]) -> None:
        want = wanted(self._run.source, self._plan.spec, self._limits, self._workspace)
        temp = Path(tempfile.mkdtemp(prefix="tree-", dir=self._folder))
        try:
            credential = credential_of(self._plan.env, want)
            maker = TreeMaker(temp, want, self._run.org, log, self._limits, credential)
            await maker.make()
            await self._copy(maker.tree, want, log)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, temp, ignore_errors=True))

    async def _copy(self, tree: Path, want: Wanted, log: IO[bytes]) -> None:
        quoted = shlex.quote(want.path)
        script = (f"mkdir -p {quoted} && cd {quoted} && {_CLEAN if want.clean else 'rm -rf .git'} && "
                  "exec tar -x -f - --no-same-owner")  # fmt: skip
        spawn = Spawn(id=f"{self._plan.id}-copy-{tree.parent.name}", argv=("sh", "-c", script), env=self._plan.env,
                      cwd=self._workspace, mode="pipes", umask=environment.UMASK)  # fmt: skip
        try:
            inside = await self._sandbox.spawn(spawn)
        except BackendError as error:
            raise CheckoutError(f"the tree cannot be taken into the sandbox: {error}") from error
        stdin, stdout, stderr = inside.fds
        try:
            host = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
            outside = await start(("tar", "-c", "-f", "-", "-C", str(tree), "."), stdin, log, host)
        finally:
            os.close(stdin)
        try:
            async with asyncio.TaskGroup() as group:
                said = group.create_task(_read_some(stdout)), group.create_task(_read_some(stderr))
                packed = await wait(outside)
                ended = await inside.wait()
        finally:
            await stop(outside)
        if packed or ended.code:
            text = b"".join(task.result() for task in said).decode("utf-8", "replace").strip()
            raise CheckoutError(f"the tree could not be unpacked in the sandbox (exit {ended.code}): {text}")


def _grown(spool: Path) -> Callable[[int], Awaitable[None]]:
    async def grown(beyond: int) -> None:
        while spool.stat().st_size <= beyond:  # noqa: ASYNC110 - git writes the file, and tells nobody
            await asyncio.sleep(_LOOK_SECONDS)

    return grown


async def _read_some(fd: int) -> bytes:
    """Reads a pipe to its end and closes it; keeps its last words only."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        kept = b""
        while data := await reader.read(1 << 16):
            kept = (kept + data)[-500:]
        return kept
    finally:
        transport.close()
