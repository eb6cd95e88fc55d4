"""`pitstop logs`: the output of a run, kept and live."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import say
from pitstop_cli.exits import INTERRUPTED, OK


@click.command("logs")
@click.argument("run", metavar="RUN|JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("--job", default="", metavar="JOB", help="Only this job (its key or id).")
@click.option("--summary", is_flag=True, help="Only what its steps wrote to $GITHUB_STEP_SUMMARY, as Markdown.")
@system_options
@output_option
def command(
    run: str, follow: bool, job: str, summary: bool, nats: str | None, org: str | None, output: str
) -> int:  # fmt: skip
    """Show the output of a run from its first line.

    JSON: one chunk a line: {"job", "attempt", "step", "tries", "name", "first", "lines", "kind", "time"}.
    """
    if summary:
        if follow:
            raise click.UsageError("--summary shows what is there now; leave out -f")
        return run_async(_summary(find(nats, org), run, job, as_json=output == "json"))
    return run_async(_logs(find(nats, org), run, job, follow=follow, as_json=output == "json"))


async def _logs(target: Target, run: str, job: str, *, follow: bool, as_json: bool) -> int:
    from pitstop_cli.follow import Follower
    from pitstop_common.ids import run_of_job

    async with connect(target) as client:
        status = await client.call("status", {"run": run})
        wanted = job_id(status, job or (run if run != run_of_job(run) else ""))
        follower = Follower(client, run_of_job(run), wanted)
        if not follow:
            await _show(follower, status, wanted, live=False, as_json=as_json)
            return OK
        ending = asyncio.create_task(_until_ended(client, run, wanted, follower))
        try:
            await _show(follower, status, wanted, live=True, as_json=as_json)
        except asyncio.CancelledError:
            say(f"\nthe run goes on. Follow it again: pitstop logs -f {run}")
            return INTERRUPTED
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        return OK


async def _summary(target: Target, run: str, job: str, *, as_json: bool) -> int:
    from pitstop_cli.console import harmless, out
    from pitstop_cli.follow import Follower
    from pitstop_cli.render import summaries
    from pitstop_common.ids import run_of_job
    from pitstop_common.messages import encode

    async with connect(target) as client:
        status = await client.call("status", {"run": run})
        wanted = job_id(status, job or (run if run != run_of_job(run) else ""))
        found = summaries([chunk async for chunk in Follower(client, run_of_job(run), wanted).stored()])
    keys = {entry["job"]["job"]: entry["job"]["key"] for entry in status["jobs"]}
    for chunk in found:
        if as_json:
            print(encode(chunk).decode())
            continue
        out(f"<!-- {keys.get(chunk.job, chunk.job)}, step {chunk.step}: {chunk.name} -->")
        for line in chunk.lines:
            out(harmless(line) if sys.stdout.isatty() else line)
    if not found:
        say("no step of the run has written a summary")
    return OK


def job_id(status: dict[str, Any], job: str) -> str:
    """The id of the job that was named by key or id; empty for all. Raises Failure that lists the jobs."""
    from pitstop_cli.exits import NOT_FOUND, Failure
    from pitstop_cli.watch import job_of

    if not job:
        return ""
    entry = job_of(status, job)
    if entry is None:
        keys = ", ".join(f"{one['job']['key']} ({one['job']['job']})" for one in status["jobs"])
        raise Failure(f"run {status['run']['run']} has no job {job!r}", next=f"it has: {keys}", code=NOT_FOUND)
    return str(entry["job"]["job"])


async def _show(follower: Any, status: dict[str, Any], job: str, *, live: bool, as_json: bool) -> None:
    from pitstop_cli.console import colourful
    from pitstop_cli.render import LogView

    if as_json:
        from pitstop_common.messages import encode

        async for chunk in follower.live() if live else follower.stored():
            print(encode(chunk).decode(), flush=live)
        return
    keys = {e["job"]["job"]: e["job"]["key"] for e in status["jobs"] if not job or e["job"]["job"] == job}
    view = LogView(keys, colour=colourful(sys.stdout), github=bool(os.environ.get("GITHUB_ACTIONS")))
    await follower.show(view, sys.stdout, live=live)


async def _until_ended(client: Client, run: str, job: str, follower: Any) -> None:
    from pitstop_cli.watch import watching

    async with watching(client, run) as watch:
        async for status in watch.changes():
            jobs = [entry["job"] for entry in status["jobs"] if not job or entry["job"]["job"] == job]
            if all(entry["status"] == "finished" for entry in jobs):
                follower.finish((entry["job"], entry["attempt"]) for entry in jobs)
                return
