"""`pitstop verify`: the decision log, folded again from its first record."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from pitstop_cli.client import find, output_option, system_options


@click.command("verify")
@system_options
@output_option
def command(nats: str | None, org: str | None, output: str) -> int:
    """Prove from the decision log: limits kept, each slot given once and taken back once, each job ended once.

    JSON: {"records", "runs", "ended", "grants", "wrong": [text]}. Exit code: 0 proved, 1 something is wrong, 3 could
    not check.
    """
    target = find(nats, org)
    argv = [sys.executable, "-m", "pitstop_scheduler", "verify", *(("-o", "json") if output == "json" else ())]
    return subprocess.run(argv, env={**os.environ, "PITSTOP_NATS_URL": target.nats}, check=False).returncode
