"""`pitstop exec`: one command inside a job, for scripts and agents. Asks nothing, and says exactly how it ended."""

from __future__ import annotations

import asyncio
import shlex

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.commands.ssh import WAIT_SECONDS, Wanted, enterable
from pitstop_cli.console import out_json, say
from pitstop_cli.durations import seconds
from pitstop_cli.exits import TIMEOUT, TRANSPORT, Failure


@click.command("exec")
@click.argument("run", metavar="RUN|JOB")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@click.option("--stdin", is_flag=True, help="Give the command this command's input.  [default: none]")
@click.option("--timeout", callback=seconds, metavar="TIME", help="End it after so long: 90s, 10m, 2h.")
@click.option("-i", "--identity", default="", metavar="FILE", help="Private key, as for ssh.")
@click.option("--wait", default=WAIT_SECONDS, metavar="SECONDS", help="For the sandbox.", show_default=True)
@system_options
@output_option
def command(
    run: str, arguments: tuple[str, ...], job: str, stdin: bool, timeout: float | None, identity: str, wait: float,
    nats: str | None, org: str | None, output: str,
) -> int:  # fmt: skip
    """Run a COMMAND in a job, in the environment of its step. The job stays as it is.

    One word is a line for the shell ('make test | tail'); several are a program and its arguments, as they stand.

    \b
    JSON: {"run", "job", "command", "exit_code", "signalled", "timed_out", "stdout", "stderr", "truncated", "seconds"};
    "stdout_base64" or "stderr_base64" in its place where it is not UTF-8. Of each stream the first 4 MiB are kept.
    Exit code: the command's; 124 after --timeout; 255 when the connection failed.
    """
    line = arguments[0] if len(arguments) == 1 else shlex.join(arguments)
    return run_async(
        _exec(find(nats, org), run, job, line, stdin=stdin, timeout=timeout, identity=identity, wait=wait,
              as_json=output == "json")
    )  # fmt: skip


async def _exec(
    target: Target, run: str, job: str, line: str, *, stdin: bool, timeout: float | None, identity: str, wait: float,
    as_json: bool,
) -> int:  # fmt: skip
    from pitstop_cli.pinned import refuse_another
    from pitstop_cli.remote import Remote
    from pitstop_cli.terminal import ssh_argv
    from pitstop_cli.throwaway import identity_for

    async with connect(target) as client:
        entry, address = await enterable(client, Wanted(run, job), wait)
    async with identity_for(target, identity) as key:
        remote = Remote(ssh_argv(address, identity=key), line, stdin=stdin, keep=as_json)
        try:
            async with asyncio.timeout(timeout):
                ended = await remote.run()
        except TimeoutError:
            ended = remote.given_up()
    if not ended.reached and not ended.timed_out:
        await refuse_another(address)
        raise Failure(
            f"the connection to {entry['job']['job']} failed: {ended.why}",
            next=f"see why: pitstop ssh {entry['job']['job']}", code=TRANSPORT,
        )  # fmt: skip
    if as_json:
        out_json({"run": entry["job"]["run"], "job": entry["job"]["job"], "command": line, **ended.as_json()})
    elif ended.timed_out:
        say(f"ended after {timeout:g} s", "yellow")
    return TIMEOUT if ended.timed_out else ended.exit_code
