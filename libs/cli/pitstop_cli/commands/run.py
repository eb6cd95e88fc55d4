"""`pitstop run`: from the checkout one stands in to a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pitstop_cli.client import output_option, run_async, system_options
from pitstop_cli.durations import seconds

if TYPE_CHECKING:
    from pitstop_cli.request import SshOptions


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.option("--ssh", "direct", is_flag=True, help="Open a terminal as soon as there is a sandbox."),
        click.option("--ssh-after-step", "after_step", type=int, metavar="N", help="Pause after step N (from 1)."),
        click.option("--ssh-before-step", "before_step", metavar="NAME", help="Pause before it: name, id or number."),
        click.option("--ssh-on-failure", "on_failure", is_flag=True, help="Pause when a step fails."),
        click.option("--ssh-on-any-failure", "any_failure", is_flag=True, help="… also one with continue-on-error."),
        click.option("--ssh-at-end", "at_end", is_flag=True, help="Pause after the last step."),
        click.option("--ssh-user", "users", multiple=True, metavar="USER", help="Let in somebody else, too."),
        click.option("--ssh-key", "keys", multiple=True, metavar="FILE", help="A public key to let in."),
        click.option("--connect-window", callback=seconds, metavar="DURATION", help="How long a pause waits.  [10m]"),
        click.option("--idle-timeout", callback=seconds, metavar="DURATION", help="Idle this long ends it.  [15m]"),
        click.option("--max-duration", callback=seconds, metavar="DURATION", help="From the first login.  [1h]"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command("run")
@click.option("--workflow", type=click.Path(path_type=Path), metavar="FILE",
              help="[default: the only file of .pitstop/workflows, .github/workflows or .depot/workflows]")  # fmt: skip
@click.option("--job", "jobs", multiple=True, metavar="JOB", help="Only this job (several times: these).")
@click.option("--project", metavar="NAME", help="[default: the repository's name]")
@session_options
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher goes first inside the org.")
@click.option("--retry", type=click.Choice(["infrastructure"]), help="Try a job again once whose host is lost.")
@click.option("--secrets", multiple=True, metavar="CONTEXT", help="Give the jobs the secrets of a context.")
@click.option("--committed", is_flag=True, help="Leave out what is not committed.")
@click.option("--no-wait", is_flag=True, help="Only request it.")
@click.option("--local", is_flag=True, help="Start the whole system for this run, and remove it afterwards.")
@system_options
@output_option
def command(
    workflow: Path | None, jobs: tuple[str, ...], project: str | None, priority: int, retry: str | None,
    secrets: tuple[str, ...], committed: bool, no_wait: bool, local: bool, nats: str | None, org: str | None,
    output: str, **session: Any,
) -> int:  # fmt: skip
    """Request a run of a workflow file, and follow it to its end.

    HEAD is checked out, with what is not committed (what is ignored stays out). At a pause the terminal opens by
    itself; off a terminal, stdout is one line: the ssh command.

    \b
    Exit code: 0 success, 1 failure, 2 usage, 3 error, 4 not allowed, 5 not found, 6 cancelled, 124 timeout,
    130 left with Ctrl-C.

    \b
    JSON, one object a line, each with "event":
      accepted  {"run", "org", "project", "jobs": {key: id}, "queue_position", "duplicate"}
      waiting   {"job", "key", "status", "ssh": {"host", "port", "user", "command", "known_hosts", …}, "deadline"}
      finished  {"run", "result", "jobs": {key: result}, "exit_code"}
    """
    from pitstop_cli.requesting import Wish, request_run

    wish = Wish(
        workflow=workflow, jobs=jobs, project=project or "", priority=priority, retry=retry or "",
        secrets=secrets, committed=committed,
        wait=not no_wait, local=local, json=output == "json", nats=nats, org=org,
        ssh=ssh_options(**session), keys=session["keys"],
    )  # fmt: skip
    return run_async(request_run(wish))


def ssh_options(
    direct: bool, after_step: int | None, before_step: str | None, on_failure: bool, any_failure: bool,
    at_end: bool,
    users: tuple[str, ...], keys: tuple[str, ...], connect_window: float | None, idle_timeout: float | None,
    max_duration: float | None,
) -> SshOptions:  # fmt: skip
    from pitstop_cli.commands.keys import read_keys
    from pitstop_cli.request import SshOptions

    return SshOptions(
        direct=direct, after_step=after_step, before_step=before_step,
        on_failure=on_failure or any_failure, any_failure=any_failure, at_end=at_end, users=users,
        keys=tuple(key for file in keys for key in read_keys(file)), connect_window=connect_window,
        idle_timeout=idle_timeout, max_duration=max_duration,
    )  # fmt: skip
