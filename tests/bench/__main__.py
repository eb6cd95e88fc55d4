"""`python -m tests.bench`: measures, prints a table, writes bench.json."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.bench import docker, first_line, log_path, runs, sessions, ssh, ssh_idle, waiting
from tests.bench.amounts import QUICK, Amounts
from tests.bench.report import Row, table, write
from tests.whole_system import running_system

PARTS = ("first-line", "log-path", "ssh", "ssh-idle", "runs", "waiting", "sessions", "docker")


async def collect(folder: Path, amounts: Amounts, parts: Sequence[str] = PARTS) -> list[Row]:
    """All rows, in a folder that is empty."""
    rows: list[Row] = []
    if {"first-line", "log-path", "ssh"} & set(parts):
        with running_system(folder / "up") as system:
            if "first-line" in parts:
                rows += await first_line.measure(system, amounts)
            if "log-path" in parts:
                rows += await log_path.measure(system, folder, amounts)
            if "ssh" in parts:
                rows += await ssh.measure(system, folder, amounts)
    if "ssh-idle" in parts:
        rows += await ssh_idle.measure(folder / "idle", amounts)
    if "runs" in parts:
        rows += await runs.measure(folder / "runs", amounts)
    if "waiting" in parts:
        rows += await waiting.measure(amounts)
    if "sessions" in parts:
        rows += await sessions.measure(folder / "sessions", amounts)
    if "docker" in parts:
        try:
            rows += await docker.measure(folder / "docker", amounts)
        except pytest.skip.Exception as error:
            sys.stderr.write(f"not measured: {error}\n")
    return rows


def main() -> int:
    """Exit status 1 with --strict when a target is missed: on a noisy machine any of them may be, once."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    parser.add_argument("--quick", action="store_true", help="few of each: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the rows go")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pitstop-bench-") as folder:
        rows = asyncio.run(collect(Path(folder), QUICK if asked.quick else Amounts(), asked.part or PARTS))
    print(table(rows))
    print("\n".join(f"{one.name}: {one.note}" for one in rows if one.note))
    write(asked.json, rows)
    return 1 if asked.strict and any(one.passed is False for one in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
