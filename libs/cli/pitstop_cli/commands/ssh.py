"""`pitstop ssh`: into a job, waiting for its sandbox when there is none yet."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, NamedTuple, cast

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import interactive, out, out_json, plain, say
from pitstop_cli.exits import NOT_FOUND, TIMEOUT, TRANSPORT, USAGE, Failure

WAIT_SECONDS: Final = 300.0


@click.command("ssh")
@click.argument("run", metavar="RUN|JOB")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@click.option("--failed", is_flag=True, help="The job that failed, as soon as one has.")
@click.option("--info", is_flag=True, help="Print how to connect, and do not.")
@click.option("-i", "--identity", default="", metavar="FILE", help="Private key, as for ssh.")
@click.option("--wait", default=WAIT_SECONDS, metavar="SECONDS", help="For the sandbox.", show_default=True)
@system_options
@output_option
def command(
    run: str, arguments: tuple[str, ...], job: str, failed: bool, info: bool, identity: str, wait: float,
    nats: str | None, org: str | None, output: str,
) -> int:  # fmt: skip
    """Step into a job. Off a terminal, print the ssh command instead; with a COMMAND, run it and pass on its exit code.

    \b
    JSON (with --info): {"run", "job", "host", "port", "user", "command", "known_hosts", "fingerprint", "expires",
    "pinned_command"}. Exit code 255: the connection failed.
    """
    target = find(nats, org)
    as_json = output == "json"
    wanted = Wanted(run, job, failed)
    return run_async(
        _ssh(target, wanted, arguments, info=info or as_json, as_json=as_json, identity=identity, wait=wait)
    )


async def _ssh(
    target: Target, wanted: Wanted, arguments: tuple[str, ...], *, info: bool, as_json: bool, identity: str, wait: float
) -> int:  # fmt: skip
    from pitstop_cli.pinned import refuse_another
    from pitstop_cli.terminal import command_line, enter, ssh_argv
    from pitstop_cli.throwaway import identity_for

    async with connect(target) as client:
        entry, address = await enterable(client, wanted, wait)
    argv = ssh_argv(address, identity=identity)
    if info:
        _tell(entry, address, command_line(argv), as_json=as_json)
        return 0
    if not arguments and not interactive():
        out(command_line(argv))
        return 0
    async with identity_for(target, identity) as key:
        code = await enter([*ssh_argv(address, identity=key), *(("--", *arguments) if arguments else ())])
    if code == TRANSPORT:
        await refuse_another(address)
        if not arguments:
            say(
                f"ssh was not let in, or was cut: pitstop doctor ssh {address['user']} says which key it offers",
                "yellow",
            )
    return code


class Wanted(NamedTuple):
    """Which job: a run's, by key or id. `failed`: the one that has failed."""

    run: str
    job: str = ""
    failed: bool = False


async def enterable(client: Client, wanted: Wanted, wait: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and its address, as soon as it can be entered. Raises Failure when it never can."""
    from pitstop_cli.watch import address_of, watching

    said = ""
    try:
        async with asyncio.timeout(wait), watching(client, wanted.run) as watch:
            async for status in watch.changes():
                entry = _failing(status, wanted) if wanted.failed else only(status, wanted)
                if entry is None:
                    said = _say_once("no job of the run has failed yet", said)
                    continue
                address = address_of(entry)
                if address is not None:
                    return entry, address
                _refuse_the_impossible(entry)
                said = _progress(entry, said)
    except TimeoutError:
        raise Failure(
            f"no sandbox after {wait:.0f} s", next=f"where it stands: pitstop status {wanted.run}", code=TIMEOUT
        ) from None
    raise AssertionError("a watch never ends by itself")


def _failing(status: dict[str, Any], wanted: Wanted) -> dict[str, Any] | None:
    """The first job that failed and can be entered; None: none has, yet. Raises Failure when none ever will."""
    from pitstop_cli.watch import address_of

    named = wanted.job or (wanted.run if "-" in wanted.run else "")
    jobs = [entry for entry in status["jobs"] if not named or named in (entry["job"]["job"], entry["job"]["key"])]
    for entry in jobs:
        if address_of(entry) is not None and _has_failed(entry):
            return cast(dict[str, Any], entry)
    if any(entry["job"]["status"] not in {"finished", "stopping"} for entry in jobs):
        return None
    ended = [entry["job"] for entry in jobs if entry["job"]["result"] not in {"success", "skip"}]
    run = status["run"]["run"]
    raise Failure(
        f"no job of run {run} can be entered any more: " + (", ".join(f"{plain(job['key'])} ended with {job['result']}"
                                                             for job in ended) or "none has failed"),
        next=f"once more, with a pause there: pitstop rerun {run} --failed --ssh-on-failure" if ended else "",
        code=NOT_FOUND,
    )  # fmt: skip


def _has_failed(entry: dict[str, Any]) -> bool:
    report = entry["report"] or {}
    bad = {"failure", "timeout", "error"}
    return report.get("paused") == "on_failure" or any(step.get("result") in bad for step in report.get("steps") or ())


def only(status: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The entry of the job that is meant. Raises Failure when it is not clear which."""
    from pitstop_cli.commands.logs import job_id
    from pitstop_cli.watch import job_of

    run = wanted.run
    entry = job_of(status, job_id(status, wanted.job or (run if "-" in run else "")))
    if entry is None:
        keys = "\n  ".join(f"pitstop ssh {e['job']['job']}   # {plain(e['job']['key'])}, {e['job']['status']}"
                           for e in status["jobs"])  # fmt: skip
        raise Failure(f"run {run} has {len(status['jobs'])} jobs; name one", next=keys, code=USAGE)
    return entry


def _refuse_the_impossible(entry: dict[str, Any]) -> None:
    from pitstop_cli import words

    job = entry["job"]
    if job["status"] in {"finished", "stopping"}:
        result = job["result"] or "being stopped"
        raise Failure(
            f"job {job['job']} has ended ({result}); nobody can enter it any more",
            next=words.over(job["job"]),
            code=NOT_FOUND,
        )
    if not entry.get("allowed"):
        raise Failure(
            f"job {job['job']} offers no session: its run did not ask for one",
            next=f"pitstop rerun {job['job']} --ssh, or with --ssh-after-step N, --ssh-on-failure, --ssh-at-end",
            code=USAGE,
        )


def _progress(entry: dict[str, Any], said: str) -> str:
    from pitstop_cli import words

    text = words.queued(entry) if entry["job"]["status"] == "queued" else words.state(entry)
    return _say_once(f"waiting for the sandbox of {entry['job']['job']}: {text}", said)


def _say_once(text: str, said: str) -> str:
    if text != said:
        say(text, "dim")
    return text


def _tell(entry: dict[str, Any], address: dict[str, Any], pinned: str, *, as_json: bool) -> None:
    from pitstop_cli.console import plain as shown
    from pitstop_cli.pinned import fingerprint_of
    from pitstop_cli.words import clock

    fingerprint = fingerprint_of(str(address.get("known_hosts") or ""))
    deadline = entry["job"].get("deadline") or 0
    if as_json:
        expires = address.get("expires") or (_rfc3339(deadline) if deadline else "")
        out_json({"run": entry["job"]["run"], "job": entry["job"]["job"], **address, "fingerprint": fingerprint,
                  "expires": expires, "pinned_command": pinned})  # fmt: skip
        return
    out(f"command      {shown(address['command'])}")
    out(f"host         {address['host']}\nport         {address['port']}\nuser         {address['user']}")
    out(f"host key     {fingerprint}")
    for line in str(address.get("known_hosts") or "").splitlines():
        out(f"known_hosts  {shown(line)}")
    if deadline:
        out(f"until        {clock(deadline, time.time())}")


def _rfc3339(seconds: float) -> str:
    from pitstop_common.pull import rfc3339

    return rfc3339(seconds)
