"""`pitstop doctor`: what this machine and the connection are fit for, with one fix for each fault."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, styled
from pitstop_cli.exits import Failure

if TYPE_CHECKING:
    from pitstop_cli.checks import Check


@click.group("doctor", invoke_without_command=True)
@system_options
@output_option
@click.pass_context
def command(ctx: click.Context, nats: str | None, org: str | None, output: str) -> int | None:
    """Check this machine and the connection; with `ssh JOB`, why a job would let you in or not.

    JSON: {"ok": bool, "checks": [{"name", "state": "ok|warn|fail", "found", "fix"}]}. Exit code: 0, or 1 with a fail.
    """
    from pitstop_cli import checks

    if ctx.invoked_subcommand is not None:
        return None
    return _told([*checks.machine(), *run_async(checks.system(nats, org))], output)


@command.command("ssh")
@click.argument("run", metavar="RUN|JOB")
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@click.option("-i", "--identity", default="", metavar="FILE", help="The only key to look at, as for ssh.")
@system_options
@output_option
def ssh(run: str, job: str, identity: str, nats: str | None, org: str | None, output: str) -> int:
    """Which keys would be offered to a job, whose they are, and why each lets you in or not.

    JSON and exit code: as of `pitstop doctor`.
    """
    return _told(run_async(_ssh(find(nats, org), run, job, identity)), output)


async def _ssh(target: Target, run: str, job: str, identity: str) -> list[Check]:
    from pitstop_cli import checks_ssh
    from pitstop_cli.checks import Check
    from pitstop_cli.commands.ssh import Wanted, only
    from pitstop_cli.pinned import refuse_another
    from pitstop_cli.watch import address_of

    async with connect(target) as client:
        status = await client.call("status", {"run": run})
        known = await client.call("keys-ls", {})
    linked = [{"fingerprint": key} for link in known.get("links", []) for key in link["keys"]]
    mine = [*known.get("keys", []), *linked]
    entry = only(status, Wanted(run, job))
    address = address_of(entry)
    offered = checks_ssh.offered(address, identity)
    found = [*checks_ssh.job(entry), *checks_ssh.keys(entry, offered, mine), *checks_ssh.relay(address)]
    try:
        if address is not None:
            await refuse_another(address)
    except Failure as fault:
        found.append(Check("host key", "fail", fault.what, fault.next))
    return found


def _told(found: list[Check], output: str) -> int:
    broken = any(check.state == "fail" for check in found)
    if output == "json":
        out_json({"ok": not broken, "checks": msgspec.to_builtins(found)})
    else:
        _print(found)
    return 1 if broken else 0


def _print(found: list[Check]) -> None:
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max(len(check.name) for check in found)
    for check in found:
        out(f"{styled(f'{check.state:<4}', styles[check.state], sys.stdout)}  {check.name:<{width}}  {check.found}")
        if check.state != "ok":
            out(f"{'':<{width + 8}}fix: {check.fix}")
