"""`pitstop hold`: failures to come wait for a person, without a change of the workflow."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say
from pitstop_cli.durations import seconds


@click.group("hold", invoke_without_command=True)
@click.option("--project", metavar="NAME", help="[default: the repository's name]")
@click.option("--job", default="", metavar="JOB", help="Only jobs of this key.  [default: any]")
@click.option("--branch", default="", metavar="BRANCH", help="Only runs of this branch.  [default: any]")
@click.option("--count", default=1, metavar="N", show_default=True, help="So many failures.")
@click.option("--user", default="", metavar="USER", help="For whom they wait.  [default: you]")
@click.option("--expires", callback=seconds, metavar="DURATION", help="Forget it after so long.  [7d]")
@system_options
@output_option
@click.pass_context
def command(
    context: click.Context, project: str | None, job: str, branch: str, count: int, user: str, expires: float | None,
    nats: str | None, org: str | None, output: str,
) -> None:  # fmt: skip
    """Have the next N failures of a job wait for a person, whoever starts the runs and whatever they ask for.

    It is for jobs that start from now on. Each job counts once, at its first failing step; that person can enter, and
    `pitstop status` names them. `pitstop hold ls` shows what is left, `pitstop hold rm ID` removes one.

    \b
    JSON: {"hold": id, "project", "job", "branch", "user", "by", "left", "until": RFC 3339}
    """
    if context.invoked_subcommand is not None:
        return
    body: dict[str, Any] = {"id": secrets.token_hex(4), "project": project or _project(), "job": job,
                            "branch": branch, "count": count, "user": user}  # fmt: skip
    made = run_async(_call(find(nats, org), "hold", body | ({"seconds": expires} if expires else {})))
    if output == "json":
        out_json(made)
        return
    say(line(made, time.time()))
    say(f"  remove it: pitstop hold rm {made['hold']}", "dim")


@command.command("ls")
@system_options
@output_option
def list_(nats: str | None, org: str | None, output: str) -> None:
    """List the holds of the org, oldest first.

    \b
    JSON: {"holds": [as `pitstop hold` prints one]}
    """
    found = run_async(_call(find(nats, org), "hold-ls", {}))
    if output == "json":
        out_json(found)
        return
    for hold in found["holds"]:
        out(line(hold, time.time()))
    if not found["holds"]:
        say("no hold is set; `pitstop hold --project P` sets one")


@command.command("rm")
@click.argument("hold", metavar="ID")
@system_options
def remove(hold: str, nats: str | None, org: str | None) -> None:
    """Remove a hold: no failure waits for it any more. Jobs that wait already go on waiting."""
    run_async(_call(find(nats, org), "hold-rm", {"hold": hold}))
    say(f"hold {hold} is removed")


def line(hold: dict[str, Any], now: float) -> str:
    """`5f3a9c1e  the next 2 failures of web, job build, branch main, wait for ada, until 14:05`."""
    from pitstop_cli.words import clock

    failures = "failure" if hold["left"] == 1 else f"{hold['left']} failures"
    where = "".join(f", {name} {plain(hold[name])}" for name in ("job", "branch") if hold[name])
    where += "," if where else ""
    until = datetime.fromisoformat(hold["until"].replace("Z", "+00:00")).timestamp()
    waits = "waits" if hold["left"] == 1 else "wait"
    return (f"{hold['hold']}  the next {failures} of {plain(hold['project'])}{where} {waits} for {hold['user']}, "
            f"until {clock(until, now)}")  # fmt: skip


def _project() -> str:
    from pitstop_cli.checkout import read_checkout

    return read_checkout(Path.cwd()).name


async def _call(target: Target, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call(verb, body)
