"""What backends have in common whose sandboxes live in holders: starting them ahead of need, and finding them again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from pitstop_common.limits import HOLDER_WAITS, ORPHAN_GRACE
from pitstop_sandbox.backends.holding import HeldSandbox, Keeper
from pitstop_sandbox.backends.port import BackendError, SandboxSpec
from pitstop_sandbox.backends.starting import Spare
from pitstop_sandbox.holder.start import START_SECONDS
from pitstop_sandbox.holder.sweep import connect, held_below, is_held, sweep_one

SPOOL_BYTES: Final = 512 * 2**20
SPARE_DELAY: Final = 0.05
"""Seconds after a create. Starting Python takes a core for some 40 ms, which the job's first step needs more."""
ADOPT_STEP: Final = 0.02


class Holders:
    """`privileged`: holders are not held to no_new_privs, which all that they start would inherit."""

    def __init__(
        self, *, orphan_grace: float = ORPHAN_GRACE, spool_bytes: int = SPOOL_BYTES, privileged: bool = False
    ) -> None:
        self._orphan_grace = orphan_grace
        self._spool_bytes = spool_bytes
        self._privileged = privileged
        self._spare: Spare | None = None
        self._sandboxes: set[HeldSandbox] = set()
        self._closed = False
        self._seen = False

    @property
    def living(self) -> int:
        """Sandboxes that this host process has in hand."""
        return len(self._sandboxes)

    def ready(self) -> None:
        """Start a spare holder, if there is none: Python is then up by the time it is needed."""
        if not self._closed and (self._spare is None or self._spare.ending.is_over):
            self._spare = Spare(privileged=self._privileged)

    async def make(self, spec: SandboxSpec, plan: dict[str, Any], keeper: Keeper | None = None) -> HeldSandbox:
        """A holder that makes, or takes up, the sandbox of the plan. Raises BackendError; then nothing is left of what
        it made."""
        self.ready()
        spare, self._spare = self._spare, None
        assert spare is not None, "this backend is closed"
        sandbox = HeldSandbox(spec, spare.sock, spare.ending, self._sandboxes.discard, keeper)
        self._sandboxes.add(sandbox)
        try:
            await sandbox.make(self._plan(spec, plan))
            if self._seen:
                sandbox.alive()
        except BaseException as error:
            mine = not (isinstance(error, BackendError) and error.code == "sandbox_exists")
            await sandbox.discard(clear=mine)
            raise
        asyncio.get_running_loop().call_later(SPARE_DELAY, self.ready)
        return sandbox

    def _plan(self, spec: SandboxSpec, plan: dict[str, Any]) -> dict[str, Any]:
        limits = spec.limits
        return {
            "id": spec.id,
            "folder": str(spec.folder / "holder"),
            "limits": {
                "processes": limits.processes,
                "open_files": limits.open_files,
                "memory": limits.memory,
                "file_size": limits.file_size,
            },
            "orphan_grace": self._orphan_grace,
            "silence": self._orphan_grace * HOLDER_WAITS,
            "spool_limit": self._spool_bytes,
            "meters": [],
            **plan,
        }

    async def adopt(self, spec: SandboxSpec, keeper: Keeper | None = None) -> HeldSandbox | None:
        """See `Backend`. A holder that is still making its sandbox is waited for."""
        folder = spec.folder / "holder"
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while (sock := connect(folder)) is None:
            if not is_held(folder) or asyncio.get_running_loop().time() > deadline:
                await asyncio.to_thread(sweep_one, folder)
                return None
            await asyncio.sleep(ADOPT_STEP)
        sandbox = HeldSandbox(spec, sock, None, self._sandboxes.discard, keeper)
        self._sandboxes.add(sandbox)
        try:
            if await sandbox.greet():
                if self._seen:
                    sandbox.alive()
                return sandbox
        except BackendError:
            await asyncio.to_thread(sweep_one, folder)
        sandbox.let_go()
        return None

    def alive(self) -> None:
        """See `Backend`. A sandbox that is made or adopted later counts from then on."""
        self._seen = True
        for sandbox in self._sandboxes:
            sandbox.alive()

    async def below(self, root: Path) -> dict[Path, str]:
        """Folders and ids of sandboxes that live below `root`: by the locks of their holders, which a killed holder
        lets go of."""
        return await asyncio.to_thread(held_below, root)

    async def aclose(self) -> None:
        """See `Backend`. The spare ends."""
        self._closed = True
        for sandbox in list(self._sandboxes):
            sandbox.let_go()
        if self._spare:
            await self._spare.stop()
            self._spare = None
