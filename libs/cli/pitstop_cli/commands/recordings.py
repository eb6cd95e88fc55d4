"""`pitstop recordings`: terminals that a project records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, say
from pitstop_cli.exits import NOT_FOUND, USAGE, Failure


@click.group("recordings")
def command() -> None:
    """Terminals of a run, where its project records them: `recording = true` in the file of `pitstop apply`.

    What terminals showed, with secrets masked as in logs; not what was typed unseen. Kept for 7 days. Whoever may read
    the run's log and audit may read them.
    """


@command.command("ls")
@click.argument("run", metavar="RUN|JOB")
@system_options
@output_option
def list_(run: str, nats: str | None, org: str | None, output: str) -> None:
    """List the recordings of a run, or of one job of it, oldest first.

    \b
    JSON: {"recordings": [{"recording", "job", "attempt", "user", "session", "started", "title", "seconds", "size",
    "ended", "cut"}]}
    """
    found = run_async(_list(find(nats, org), run))
    if output == "json":
        out_json(found)
        return
    if not found["recordings"]:
        say("nothing is recorded: the project does not ask for it, or nobody had a terminal, or it is over 7 days ago")
        return
    from pitstop_cli.recorded import recording_lines

    for line in recording_lines(found["recordings"], time.time(), _seconds):
        out(line)


@command.command("get")
@click.argument("run", metavar="RUN|JOB")
@click.argument("recording", metavar="[RECORDING]", default="")
@click.option("-O", "--output-file", type=click.Path(path_type=Path), metavar="FILE", help="[default: stdout]")
@system_options
def get(run: str, recording: str, output_file: Path | None, nats: str | None, org: str | None) -> None:
    """Fetch a recording as an asciicast v2 file, for `asciinema play`. RECORDING may be left out when there is one."""
    from pitstop_cli.recorded import asciicast

    chunks = run_async(_get(find(nats, org), run, recording))
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(output_file.open("w", encoding="utf-8")) if output_file else None
        for line in asciicast(chunks):
            if file is None:
                out(line)
            else:
                file.write(line + "\n")
    if output_file:
        say(f"{output_file}: play it with `asciinema play {output_file}`")


async def _list(target: Target, run: str) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("recordings", {"run": run})


async def _get(target: Target, run: str, recording: str) -> list[dict[str, Any]]:
    async with connect(target) as client:
        found = (await client.call("recordings", {"run": run}))["recordings"]
        one = _only([each for each in found if recording in {"", each["recording"]}], run, recording)
        return await _chunks(client, one["job"], one["recording"])


async def _chunks(client: Client, job: str, recording: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after, pending = 0, 1
    while pending:
        reply = await client.call("recording", {"run": job, "recording": recording, "after": after})
        found += reply["chunks"]
        after, pending = reply["after"], reply["pending"]
    return found


def _only(found: Sequence[dict[str, Any]], run: str, recording: str) -> dict[str, Any]:
    if len(found) == 1:
        return found[0]
    if not found:
        what = f"recording {recording}" if recording else "recording"
        raise Failure(f"there is no {what} of {run}", next=f"pitstop recordings ls {run}", code=NOT_FOUND)
    listed = "\n  ".join(f"pitstop recordings get {one['job']} {one['recording']}" for one in found[:10])
    raise Failure(f"{run} has {len(found)} recordings; name one", next=listed, code=USAGE)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
