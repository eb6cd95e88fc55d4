"""`pitstop ls`: the runs, or who holds which slot."""

from __future__ import annotations

import time
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say


@click.command("ls")
@click.option(
    "--ssh", is_flag=True, help="Jobs that hold a slot for a session: since when, idle for how long, until when."
)
@click.option("--all", "everything", is_flag=True, help="Ended ones, too.")
@system_options
@output_option
def command(ssh: bool, everything: bool, nats: str | None, org: str | None, output: str) -> None:
    """List runs.

    \b
    JSON: {"runs": [RunView], "jobs": [JobView], "slots": {"limit", "used", "debug"}}. A JobView has "job", "key",
    "status", "use", "slot_since", "sessions", "active", "paused_at", "deadline", "deadline_reason".
    """
    target = find(nats, org)
    if not ssh:
        show_runs(target, everything=everything, output=output)
        return
    answer = run_async(_ls(target, ssh=True, everything=everything))
    if output == "json":
        out_json(answer)
        return
    from pitstop_cli.tables import HELD, held_rows, slots_line

    table(HELD, held_rows(answer))
    say(slots_line(answer, target.org))


def show_runs(target: Target, *, everything: bool, output: str) -> None:
    """The table of runs."""
    answer = run_async(_ls(target, ssh=False, everything=everything))
    if output == "json":
        out_json(answer)
        return
    from pitstop_cli.tables import slots_line
    from pitstop_cli.words import clock

    now = time.time()
    rows: list[tuple[str, ...]] = [
        (run["run"], plain(run["project"]), run["status"], run.get("result") or "", plain(run["actor"]),
         clock(run["created"], now))
        for run in answer["runs"]
    ]  # fmt: skip
    table(("RUN", "PROJECT", "STATUS", "RESULT", "BY", "SINCE"), rows)
    say(slots_line(answer, target.org))


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be."""
    from pitstop_cli.tables import columns

    for line in columns(heads, rows):
        out(line)


async def _ls(target: Target, *, ssh: bool, everything: bool) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("ls", {"ssh": ssh, "all": everything})
