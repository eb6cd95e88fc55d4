"""`pitstop rerun`: a run once more, with the same inputs."""

from __future__ import annotations

from typing import Any

import click

from pitstop_cli.client import output_option, run_async, system_options
from pitstop_cli.commands.run import session_options, ssh_options
from pitstop_cli.exits import USAGE, Failure


@click.command("rerun")
@click.argument("run", metavar="RUN|JOB")
@click.option("--failed", is_flag=True, help="Only the jobs that did not succeed.")
@click.option("--job", "jobs", multiple=True, metavar="JOB", help="Only this job, by key or id (several times: these).")
@session_options
@click.option("--no-ssh", is_flag=True, help="Without the session that the first run asked for.")
@click.option("--no-wait", is_flag=True, help="Only request it.")
@system_options
@output_option
def command(
    run: str, failed: bool, jobs: tuple[str, ...], no_ssh: bool, no_wait: bool, nats: str | None, org: str | None,
    output: str, **session: Any,
) -> int:  # fmt: skip
    """Do a run again, and follow it to its end: the same steps of the same commit, with you as its actor.

    It pauses where the first run did, unless --ssh… says otherwise; people and keys that were let in there are not let
    in here. `pitstop status` of each names the other. Runs are kept for 14 days.

    \b
    In debug mode:  pitstop rerun RUN --failed --ssh-on-failure

    JSON and exit codes: as `pitstop run`; "accepted" also has "rerun_of" and "notes".
    """
    from pitstop_cli.rerunning import Wish, request_rerun

    ssh = ssh_options(**session)
    if no_ssh and ssh.asked:
        raise Failure("--no-ssh and the other --ssh… options exclude each other", code=USAGE)
    wish = Wish(run=run, failed=failed, jobs=jobs, ssh=ssh, no_ssh=no_ssh, keys=session["keys"], wait=not no_wait,
                json=output == "json", nats=nats, org=org)  # fmt: skip
    return run_async(request_rerun(wish))
