"""`pitstop status`: where a run stands, how to enter it, what its steps did."""

from __future__ import annotations

import time
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, say


@click.command("status")
@click.argument("run", required=False, metavar="[RUN|JOB]")
@system_options
@output_option
def command(run: str | None, nats: str | None, org: str | None, output: str) -> None:
    """Show a run: jobs, the ssh command, who is let in, slots, queue position, steps. Without RUN: the newest runs.

    \b
    JSON: {"run": {…}, "jobs": [{"job": {…}, "report": {"steps": [{"index", "name", "result", "exit_code", "attempts",
    "choice", "by"}], "paused", "ssh": {…}}, "position", "reason", "limit", "used", "allowed": [{"user",
    "fingerprint"}]}]}, as the request api.<org>.<actor>.status answers.
    """
    target = find(nats, org)
    if run is None:
        from pitstop_cli.commands.ls import show_runs

        show_runs(target, everything=False, output=output)
        return
    status = run_async(_status(target, run))
    if output == "json":
        out_json(status)
        return
    from pitstop_cli import words

    for line in words.run_lines(status, time.time()):
        out(line)
    waiting = [entry["job"]["job"] for entry in status["jobs"] if entry["job"]["status"] == "paused"]
    if waiting:
        say(f"\nstep in: pitstop ssh {waiting[0]}")


async def _status(target: Target, run: str) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("status", {"run": run})
