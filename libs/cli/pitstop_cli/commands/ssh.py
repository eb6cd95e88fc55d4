"""`pitstop ssh`: into a job, waiting for its sandbox when there is none yet."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import interactive, out, out_json, plain, say
from pitstop_cli.exits import NOT_FOUND, TIMEOUT, USAGE, Failure

WAIT_SECONDS: Final = 300.0


@click.command("ssh")
@click.argument("run", metavar="RUN|JOB")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@click.option("--info", is_flag=True, help="Print how to connect, and do not.")
@click.option("-i", "--identity", default="", metavar="FILE", help="Private key, as for ssh.")
@click.option("--wait", default=WAIT_SECONDS, metavar="SECONDS", help="For the sandbox.", show_default=True)
@system_options
@output_option
def command(
    run: str, arguments: tuple[str, ...], job: str, info: bool, identity: str, wait: float, nats: str | None,
    org: str | None, output: str,
) -> int:  # fmt: skip
    """Step into a job. Off a terminal, print the ssh command instead; with a COMMAND, run it and pass on its exit code.

    \b
    JSON (with --info): {"run", "job", "host", "port", "user", "command", "known_hosts", "fingerprint", "expires",
    "pinned_command"}. Exit code 255: the connection failed.
    """
    target = find(nats, org)
    as_json = output == "json"
    return run_async(
        _ssh(target, run, job, arguments, info=info or as_json, as_json=as_json, identity=identity, wait=wait)
    )


async def _ssh(
    target: Target, run: str, job: str, arguments: tuple[str, ...], *, info: bool, as_json: bool, identity: str,
    wait: float,
) -> int:  # fmt: skip
    from pitstop_cli.terminal import command_line, enter, ssh_argv

    async with connect(target) as client:
        entry, address = await enterable(client, run, job, wait)
    argv = ssh_argv(address, identity=identity)
    if info:
        _tell(entry, address, command_line(argv), as_json=as_json)
        return 0
    if not arguments and not interactive():
        out(command_line(argv))
        return 0
    return await enter([*argv, *(("--", *arguments) if arguments else ())])


async def enterable(client: Client, run: str, job: str, wait: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and its address, as soon as it can be entered. Raises Failure when it never can."""
    from pitstop_cli.watch import address_of, watching

    said = ""
    try:
        async with asyncio.timeout(wait), watching(client, run) as watch:
            async for status in watch.changes():
                entry = _only(status, run, job)
                address = address_of(entry)
                if address is not None:
                    return entry, address
                _refuse_the_impossible(entry)
                said = _progress(entry, said)
    except TimeoutError:
        raise Failure(
            f"no sandbox after {wait:.0f} s", next=f"where it stands: pitstop status {run}", code=TIMEOUT
        ) from None
    raise AssertionError("a watch never ends by itself")


def _only(status: dict[str, Any], run: str, job: str) -> dict[str, Any]:
    from pitstop_cli.commands.logs import job_id
    from pitstop_cli.watch import job_of

    wanted = job_id(status, job or (run if "-" in run else ""))
    entry = job_of(status, wanted)
    if entry is None:
        keys = "\n  ".join(f"pitstop ssh {e['job']['job']}   # {plain(e['job']['key'])}, {e['job']['status']}"
                           for e in status["jobs"])  # fmt: skip
        raise Failure(f"run {run} has {len(status['jobs'])} jobs; name one", next=keys, code=USAGE)
    return entry


def _refuse_the_impossible(entry: dict[str, Any]) -> None:
    job = entry["job"]
    if job["status"] in {"finished", "stopping"}:
        result = job["result"] or "being stopped"
        raise Failure(
            f"job {job['job']} has ended ({result}); nobody can enter it any more",
            next=f"what it said: pitstop logs {job['job']}   again: pitstop rerun {job['job']} --ssh-on-failure",
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
    if text != said:
        say(f"waiting for the sandbox of {entry['job']['job']}: {text}", "dim")
    return text


def _tell(entry: dict[str, Any], address: dict[str, Any], pinned: str, *, as_json: bool) -> None:
    from pitstop_cli.console import plain as shown
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
    out(f"host key     {fingerprint}\nknown_hosts  {address.get('known_hosts', '')}")
    if deadline:
        out(f"until        {clock(deadline, time.time())}")


def fingerprint_of(known_hosts: str) -> str:
    """`[host]:port ssh-ed25519 AAAA…` -> `SHA256:…`; empty when there is none."""
    from pitstop_common.public_keys import BadKey, parse_public_key

    lines = known_hosts.splitlines()
    try:
        return parse_public_key(" ".join(lines[0].split()[1:3])).fingerprint if lines else ""
    except BadKey:
        return ""


def _rfc3339(seconds: float) -> str:
    from pitstop_common.pull import rfc3339

    return rfc3339(seconds)
