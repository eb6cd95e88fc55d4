"""A session, beside OpenSSH's sshd: same client, key exchange and cipher, by turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench import ssh_bulk, ssh_burst, ssh_connect, ssh_echo, ssh_prompt
from tests.bench.amounts import Amounts
from tests.bench.report import Row
from tests.bench.ssh_ends import openssh, paused_job


async def measure(system: dict[str, Any], folder: Path, amounts: Amounts) -> list[Row]:
    """`folder`: the bench's, in which the system's is `up`."""
    with openssh(folder / "openssh") as sshd:
        async with paused_job(system, folder) as job:
            return [
                *ssh_connect.measure(job, sshd, amounts),
                *ssh_prompt.measure(job, sshd, amounts),
                *ssh_echo.measure(job, sshd, amounts),
                *ssh_bulk.measure(job, sshd, amounts),
                *ssh_burst.measure(folder / "up", job, sshd, amounts),
            ]
