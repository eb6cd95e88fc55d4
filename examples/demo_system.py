"""What the demo stands on: this checkout, a system of its own in a temporary folder, and nothing left of it after."""

import asyncio
import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from demo_show import DemoError

ROOT: Final = Path(__file__).resolve().parent.parent
PITSTOP: Final = Path(sys.executable).parent / "pitstop"
_DEFECT: Final = "examples/clock/clock.sh"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 40.0
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)


def head_of_this_checkout() -> str:
    """The commit that the run checks out. DemoError: no commit, or not ours."""
    for tool in ("git", "ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            raise DemoError(f"there is no {tool} here. As root: apt-get install git openssh-client")
    with contextlib.suppress(KeyError):
        pwd.getpwuid(os.getuid())
        return _commit()
    raise DemoError(
        f"user {os.getuid()} has no account, and ssh refuses to run without one. Use a user of this machine"
    )


def _commit() -> str:
    # A checkout may belong to somebody else; git wants to be told that this one is meant.
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT))
    head = subprocess.run([*git, "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    if head.returncode or Path(top.stdout.strip()).resolve() != ROOT:
        raise DemoError(
            f"{ROOT} is not a git checkout with a commit, and the run checks one out. Clone the repository, or:\n"
            f"  cd {ROOT} && git init && git add -A && git commit -m start"
        )
    sha = head.stdout.strip()
    if subprocess.run([*git, "cat-file", "-e", f"{sha}:{_DEFECT}"], capture_output=True).returncode:
        raise DemoError(f"commit {sha[:10]} of {ROOT} has no {_DEFECT}. Commit it: git add examples && git commit")
    return sha


class System:
    """A running `pitstop up --json`. `facts` is the line it printed."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.facts: dict[str, Any] = {}

    @property
    def nats(self) -> str:
        """The URL, with the owner's credential."""
        return str(self.facts["nats"])

    async def verify(self) -> dict[str, Any]:
        """What `pitstop verify` found in the decision log."""
        verify = await asyncio.create_subprocess_exec(
            str(PITSTOP), "verify", "-o", "json", env=_environment() | {"PITSTOP_DIR": str(self.folder / "system")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await verify.communicate()
        if not out:
            raise DemoError(f"`pitstop verify` could not check: {err.decode(errors='replace').strip()}")
        found: dict[str, Any] = json.loads(out)
        return found

    def interrupt(self) -> None:
        """As Ctrl-C: the first drains, the second ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    async def stop(self) -> None:
        """Drain it; harder when it does not come to an end."""
        for seconds in (_STOP_SECONDS, 10.0):
            if self.process.returncode is None:
                self.interrupt()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.process.wait()
                return
        self.process.kill()
        await self.process.wait()

    def said(self) -> str:
        """The last words of `pitstop up`."""
        lines = (self.folder / "up.log").read_text(errors="replace").splitlines()
        return " / ".join([line.strip() for line in lines if line.strip("^ ")][-3:])


@contextlib.asynccontextmanager
async def running_system(folder: Path, *options: str) -> AsyncIterator[System]:
    """`pitstop up` in a folder, ready, for the length of a block; drained after it."""
    if not PITSTOP.exists():
        raise DemoError(f"there is no {PITSTOP}. `make demo` installs everything into .venv first")
    with (folder / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(PITSTOP), "up", "--json", "--dir", str(folder / "system"), *options,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            preexec_fn=_end_with_us, env=_environment(),
        )  # fmt: skip
    system = System(process, folder)
    try:
        system.facts = await _ready(system)
        yield system
    finally:
        await system.stop()


async def _ready(system: System) -> dict[str, Any]:
    assert system.process.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            line = await system.process.stdout.readline()
        facts: dict[str, Any] = json.loads(line)
        return facts
    except (TimeoutError, ValueError):
        raise DemoError(f"`pitstop up` is not ready, and said: {system.said() or 'nothing'}") from None


def _environment() -> dict[str, str]:
    """Nothing that somebody has set for a Pitstop of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PITSTOP_")}


def _end_with_us() -> None:
    """In the child: the kernel asks it to stop when the demo is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a key pair, `key` and `key.pub`; it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pitstop-demo-"))
    try:
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "made for this demo", "-f", str(folder / "key")]
        subprocess.run(key, check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def leftovers(folder: Path) -> list[str]:
    """Processes and mounts that have to do with a folder; none are ours."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    return [f"mount {mount}" for mount in mounts] + [
        f"process {entry.name}"
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _concerns(entry, str(folder))
    ]


def _concerns(process: Path, folder: str) -> bool:
    for name in ("cmdline", "environ", "mountinfo"):
        with contextlib.suppress(OSError):
            if folder in (process / name).read_text(errors="replace"):
                return True
    with contextlib.suppress(OSError):
        return any(folder in str(link.readlink()) for link in (process / "cwd", *(process / "fd").iterdir()))
    return False
