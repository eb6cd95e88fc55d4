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
    actors = {run["run"]: plain(run["actor"]) for run in answer["runs"]}
    rows = [_session(job, actors.get(job["run"], ""), answer["now"]) for job in answer["jobs"]]
    table(("JOB", "KEY", "STATE", "BY", "SLOT SINCE", "INSIDE", "IDLE", "UNTIL"), rows)
    _slots(answer, target.org)


def show_runs(target: Target, *, everything: bool, output: str) -> None:
    """The table of runs."""
    answer = run_async(_ls(target, ssh=False, everything=everything))
    if output == "json":
        out_json(answer)
        return
    from pitstop_cli.words import clock

    now = time.time()
    rows: list[tuple[str, ...]] = [
        (run["run"], plain(run["project"]), run["status"], run.get("result") or "", plain(run["actor"]),
         clock(run["created"], now))
        for run in answer["runs"]
    ]  # fmt: skip
    table(("RUN", "PROJECT", "STATUS", "RESULT", "BY", "SINCE"), rows)
    _slots(answer, target.org)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        out("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _session(job: dict[str, Any], actor: str, now: float) -> tuple[str, ...]:
    from pitstop_cli.words import clock, span

    until = f"{clock(job['deadline'], now)} ({job.get('deadline_reason') or '?'})" if job.get("deadline") else "-"
    last = max(job.get("active") or 0, job.get("paused_at") or 0)
    return (
        job["job"], plain(job["key"]), job["status"], actor,
        clock(job["slot_since"], now) if job.get("slot_since") else "-",
        str(job.get("sessions") or 0), span(max(0.0, now - last)) if last else "-", until,
    )  # fmt: skip


def _slots(answer: dict[str, Any], org: str) -> None:
    slots = answer.get("slots") or {}
    if slots:
        say(f"{slots.get('used', 0)} of {slots.get('limit') or 'unlimited'} slots of {org} in use, "
            f"{slots.get('debug', 0)} of them for sessions")  # fmt: skip


async def _ls(target: Target, *, ssh: bool, everything: bool) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("ls", {"ssh": ssh, "all": everything})
