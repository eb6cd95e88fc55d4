"""`pitstop run --local`: a system of its own for one run, removed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from pitstop_cli.client import Target
from pitstop_cli.console import say
from pitstop_cli.exits import Failure
from pitstop_cli.local.settings import Options
from pitstop_cli.local.system import LocalSystem
from pitstop_cli.paths import os_actor
from pitstop_cli.request import SshOptions


@contextlib.asynccontextmanager
async def system_for_one_run(org: str, ssh: SshOptions) -> AsyncIterator[tuple[Target, SshOptions, str]]:
    """The system, the session options with a key made for this run, and the file of its private half."""
    folder = Path(tempfile.mkdtemp(prefix="pitstop-"))
    system = LocalSystem(Options(dir=folder, org=org), say)
    try:
        identity = _throwaway_key(folder) if ssh.asked else ""
        if identity:
            public = Path(identity + ".pub").read_text().strip()
            ssh = msgspec.structs.replace(ssh, keys=(*ssh.keys, public))
        say("starting a system for this run")
        facts = await system.start()
        yield Target(nats=facts.nats, org=org, actor=os_actor(), local=True, dir=folder, ssh=facts.ssh), ssh, identity
    finally:
        await asyncio.shield(_end(system, folder))


async def _end(system: LocalSystem, folder: Path) -> None:
    await system.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _throwaway_key(folder: Path) -> str:
    path = folder / "key"
    try:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pitstop run --local", "-f", path], check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"cannot make a key: {error}", next="apt install openssh-client") from None
    return str(path)
