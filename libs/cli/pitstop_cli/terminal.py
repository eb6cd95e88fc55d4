"""OpenSSH as a child: with the host key pinned, so that it never asks."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pitstop_cli.exits import SYSTEM, Failure
from pitstop_cli.paths import state_dir, write_private


def ssh_argv(address: dict[str, Any], *, identity: str = "", folder: Path | None = None) -> list[str]:
    """The command line that enters a job. Writes the pinned host key to a file of its own. Raises Failure."""
    line = str(address.get("known_hosts") or "").strip()
    user, host, port = str(address["user"]), str(address["host"]), int(address["port"])
    if not line:
        raise Failure(
            f"the host key of {host}:{port} is not known, so nobody could tell whom you would be talking to",
            next="is the relay running? `pitstop doctor` looks",
        )
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*", host) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", user):
        raise Failure(f"strange address {user}@{host}; not connecting")
    pinned = (folder or state_dir()) / "pins" / f"{host.replace(':', '_')}_{port}"
    write_private(pinned, line + "\n")
    argv = ["ssh", "-o", f'UserKnownHostsFile="{pinned}"' if " " in str(pinned) else f"UserKnownHostsFile={pinned}",
            "-o", "StrictHostKeyChecking=yes"]  # fmt: skip
    if identity:
        argv += ["-i", identity]
    if port != 22:
        argv += ["-p", str(port)]
    return [*argv, f"{user}@{host}"]


def command_line(argv: Sequence[str]) -> str:
    """For a person or a script to run: one line of shell."""
    return shlex.join(argv)


def private_key(public: Path) -> str:
    """The private half beside a public key file; empty when it is not there (then the agent has it)."""
    private = public.with_suffix("") if public.suffix == ".pub" else public
    return str(private) if private != public and private.is_file() else ""


async def enter(argv: Sequence[str], after: Callable[[], None] | None = None) -> int:
    """Give the terminal to ssh until it ends. `after`: what Ctrl-C does from then on. Returns ssh's exit status
    (255: it could not connect, or was cut)."""
    if shutil.which("ssh") is None:
        raise Failure("there is no ssh here", next="apt install openssh-client", code=SYSTEM)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C belongs to the shell now
    try:
        # By key only: who has none is told so, and is not asked for a password that nobody has.
        process = await asyncio.create_subprocess_exec(argv[0], "-o", "PasswordAuthentication=no", *argv[1:])
        return await process.wait()
    finally:
        if after is None:
            loop.remove_signal_handler(signal.SIGINT)
        else:
            loop.add_signal_handler(signal.SIGINT, after)
