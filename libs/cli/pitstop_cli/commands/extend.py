"""`pitstop extend`: keep a session."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out_json, say
from pitstop_cli.durations import seconds


@click.command("extend")
@click.argument("run", metavar="RUN|JOB")
@click.argument("length", metavar="DURATION", callback=seconds)
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@system_options
@output_option
def command(run: str, length: float, job: str, nats: str | None, org: str | None, output: str) -> None:
    """Keep a session for DURATION from now (90s, 30m, 2h), whatever its idle limit and maximum say.

    The org's longest session (`pitstop org show`), counted from the first login, bounds it.

    \b
    JSON: {"job", "until": RFC 3339, "capped": true when the org allows no more}
    """
    answer = run_async(_extend(find(nats, org), {"run": run, "job": job, "seconds": length}))
    if output == "json":
        out_json(answer)
        return
    from pitstop_cli.words import clock

    until = datetime.fromisoformat(answer["until"].replace("Z", "+00:00")).timestamp()
    say(f"the session of {answer['job']} is kept until {clock(until, time.time())}")
    if answer["capped"]:
        say("  the org allows no more: its longest session is in `pitstop org show`", "yellow")


async def _extend(target: Target, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("extend", body)
