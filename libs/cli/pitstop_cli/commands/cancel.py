"""`pitstop cancel`: end a run, one job, or the sessions that nobody uses."""

from __future__ import annotations

from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say
from pitstop_cli.durations import seconds
from pitstop_cli.exits import USAGE, Failure


@click.command("cancel")
@click.argument("run", metavar="[RUN|JOB]", required=False)
@click.option("--reason", default="", help="Told to people inside, and kept with the run.")
@click.option("--ssh", is_flag=True, help="Jobs that hold a slot for a session; needs --idle-over.")
@click.option("--idle-over", callback=seconds, metavar="DURATION", help="With --ssh: nobody was active for longer.")
@click.option("--dry-run", is_flag=True, help="With --ssh: only say which.")
@system_options
@output_option
def command(
    run: str | None, reason: str, ssh: bool, idle_over: float | None, dry_run: bool, nats: str | None, org: str | None,
    output: str,
) -> None:  # fmt: skip
    """End a run, or one job of it. People inside are told. With --ssh --idle-over 30m: every job that has been held for
    a session, and in which nobody was active, for longer than that.

    \b
    JSON: {"cancelled": [{"job", "run", "key", "actor", "idle": seconds}], "dry_run"}; of a run or job [{"job" or
    "run"}].
    """
    if (run is None) == (not ssh) or ssh != (idle_over is not None) or (dry_run and not ssh):
        raise Failure(
            "name a run or a job, or say --ssh and --idle-over",
            next="pitstop cancel RUN|JOB   or   pitstop cancel --ssh --idle-over 30m [--dry-run]",
            code=USAGE,
        )
    target = find(nats, org)
    if run is not None:
        run_async(_cancel(target, run, reason))
        cancelled: list[dict[str, Any]] = [{"job" if "-" in run else "run": run}]
        say(f"{run} is being cancelled")
    else:
        assert idle_over is not None
        cancelled = run_async(_cancel_idle(target, idle_over, reason, dry_run=dry_run))
        if output == "text":
            _tell(cancelled, idle_over, dry_run=dry_run)
    if output == "json":
        out_json({"cancelled": cancelled, "dry_run": dry_run})


async def _cancel(target: Target, run: str, reason: str) -> None:
    async with connect(target) as client:
        await client.call("cancel", _body(run, reason))


async def _cancel_idle(target: Target, idle_over: float, reason: str, *, dry_run: bool) -> list[dict[str, Any]]:
    from pitstop_cli.exits import NOT_FOUND

    cancelled = []
    async with connect(target) as client:
        for job in idle_sessions(await client.call("ls", {"ssh": True}), idle_over):
            try:
                if not dry_run:
                    await client.call("cancel", _body(job["job"], reason or "idle"))
            except Failure as gone:
                if gone.code != NOT_FOUND:
                    raise
                continue
            cancelled.append(job)
    return cancelled


def idle_sessions(listed: dict[str, Any], idle_over: float) -> list[dict[str, Any]]:
    """Jobs of `ls --ssh` that are held for a session, with how long nobody was active; longest first. By the server's
    clock alone."""
    actors = {run["run"]: run["actor"] for run in listed["runs"]}
    held = [
        {"job": job["job"], "run": job["run"], "key": job["key"], "actor": actors.get(job["run"], ""),
         "idle": listed["now"] - max(job["active"], job["paused_at"])}
        for job in listed["jobs"]
        if job["use"] == "debug"
    ]  # fmt: skip
    return sorted((job for job in held if job["idle"] > idle_over), key=lambda job: -job["idle"])


def _tell(cancelled: list[dict[str, Any]], idle_over: float, *, dry_run: bool) -> None:
    from pitstop_cli.words import span

    for job in cancelled:
        by = f" of {plain(job['actor'])}" if job["actor"] else ""
        out(f"{job['job']}  {plain(job['key'])}{by}  idle {span(job['idle'])}")
    if not cancelled:
        say(f"no job is held for a session that has been idle for {span(idle_over)}")
    elif dry_run:
        say("none was cancelled (--dry-run)")
    else:
        say(f"{len(cancelled)} being cancelled")


def _body(run: str, reason: str) -> dict[str, str]:
    from pitstop_common.ids import run_of_job

    of = run_of_job(run)
    return {"run": of, "job": run if run != of else "", "reason": reason}
