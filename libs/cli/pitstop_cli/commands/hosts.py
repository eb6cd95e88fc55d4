"""`pitstop hosts`: the sandbox hosts, and which of them take no new job."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out_json, plain, say
from pitstop_cli.durations import seconds
from pitstop_cli.exits import TIMEOUT, Failure

_HEADS: Final = ("HOST", "STATE", "POOL", "LABELS", "BACKEND", "RUNNING", "FREE", "OF", "SEEN", "VERSION")
_LOOK: Final = 0.5
"""Seconds between two looks."""
_GONE: Final = ("lost", "down")


@click.group("hosts")
def command() -> None:
    """Sandbox hosts: which there are, and which take no new job."""


@command.command("ls")
@click.option("--all", "everything", is_flag=True, help="Those that have left, too.")
@system_options
@output_option
def ls(everything: bool, nats: str | None, org: str | None, output: str) -> None:
    """List the hosts, by pool.

    \b
    STATE: up; draining (takes no new job, some still run there), drained (nothing is left there), stopping;
    silent (no sign of life for 15 s), lost (its jobs were given up), down (it left).
    JSON: {"now", "hosts": [{"host", "state", "pool", "labels", "backend", "version", "capacity", "free", "running",
    "jobs": those that you may see, "last_seen": seconds since the epoch, "drained", "drained_by", "knows"}]}
    """
    found = run_async(_call(find(nats, org), "hosts-ls", {}))
    shown = [host for host in found["hosts"] if everything or host["drained"] or host["state"] != "down"]
    if output == "json":
        out_json({**found, "hosts": shown})
        return
    if not shown:
        left = len(found["hosts"])
        say("no sandbox host is up" + (f"; {left} left (--all shows them)" if left else ""))
        say("  start one: pitstop serve sandbox", "dim")
        return
    from pitstop_cli.commands.ls import table

    table(_HEADS, [_row(host, found["now"]) for host in shown])


@command.command("drain")
@click.argument("host", metavar="HOST")
@click.option("--off", is_flag=True, help="It takes jobs again.")
@click.option("--wait", is_flag=True, help="Until nothing is left on it.")
@click.option("--timeout", callback=seconds, metavar="DURATION", help="Wait no longer than so.  [default: no limit]")
@system_options
@output_option
def drain(host: str, off: bool, wait: bool, timeout: float | None, nats: str | None, org: str | None,
          output: str) -> None:  # fmt: skip
    """Have a host take no new job. Those that run there end there, and people inside them stay.

    It outlasts restarts of the host and of the schedulers; --off ends it. It takes an admin of the deployment.
    Exit status 124: it was not drained within --timeout.

    \b
    JSON: the host, as `pitstop hosts ls` shows it
    """
    if off and wait:
        raise Failure("--wait is for a host that is drained; leave it out with --off", code=2)
    found = run_async(_drain(find(nats, org), host, off=off, wait=wait, timeout=timeout, quiet=output == "json"))
    if output == "json":
        out_json(found)
    else:
        say(told(found), "green" if found["state"] in {"up", "drained"} else "")
    if wait and found["state"] not in {"drained", *_GONE}:
        running = found["running"]
        raise Failure(f"{host} is not drained yet: {_jobs(running)} left there", code=TIMEOUT,
                      next="see which: pitstop hosts ls -o json   (or end them: pitstop cancel JOB)")  # fmt: skip


def told(host: dict[str, Any]) -> str:
    """What has become of a host, in a sentence."""
    name, state = host["host"], host["state"]
    if not host["drained"]:
        return f"{name} takes jobs again" if state == "up" else f"{name} takes jobs when it is up again (now: {state})"
    if state in _GONE:
        return f"{name} is {state}; when it comes back it takes no job"
    if not host["knows"]:
        return f"{name} is given no new job; it has not said yet that it knows (now: {state})"
    if state == "drained":
        return f"{name} is drained: no job is left there"
    return f"{name} takes no new job; {_jobs(host['running'])} still there, and end there"


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number} jobs are"


def _row(host: dict[str, Any], now: float) -> tuple[str, ...]:
    from pitstop_cli.words import span

    return (
        host["host"], host["state"], host["pool"], plain(",".join(host["labels"])), host["backend"] or "-",
        str(host["running"]), str(host["free"]), str(host["capacity"]),
        f"{span(max(0.0, now - host['last_seen']))} ago", host["version"] or "-",
    )  # fmt: skip


async def _drain(
    target: Target, host: str, *, off: bool, wait: bool, timeout: float | None, quiet: bool
) -> dict[str, Any]:
    async with connect(target) as client:
        found = await client.call("hosts-drain", {"host": host, "off": off})
        if not wait:
            return found
        try:
            async with asyncio.timeout(timeout):
                return await _until_drained(client, found, quiet=quiet)
        except TimeoutError:
            return await _seen(client, host)


async def _until_drained(client: Client, found: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    running = None
    while found["state"] not in {"drained", *_GONE} and found["drained"]:
        if not quiet and found["running"] != running:
            running = found["running"]
            say(told(found), "dim")
        await asyncio.sleep(_LOOK)
        found = await _seen(client, found["host"])
    return found


async def _seen(client: Client, host: str) -> dict[str, Any]:
    answer = await client.call("hosts-ls", {})
    found: dict[str, Any] = next(one for one in answer["hosts"] if one["host"] == host)
    return found


async def _call(target: Target, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call(verb, body)
