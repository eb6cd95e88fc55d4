"""`pitstop token`: what lets people log in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.commands.ls import table
from pitstop_cli.console import out, out_json, plain, say
from pitstop_cli.durations import seconds
from pitstop_cli.exits import USAGE, Failure
from pitstop_cli.logins import place_of
from pitstop_cli.paths import write_private


@click.group("token")
def command() -> None:
    """Tokens that people log in with, and the logins made of them."""


@command.command("create")
@click.option("--user", default="", metavar="USER", help="Who will log in with it.  [default: you]")
@click.option("--ttl", callback=seconds, metavar="DURATION", help="How long it can be used.  [15m]")
@click.option("--lasts", callback=seconds, metavar="DURATION", help="How long the login lasts.  [720h]")
@click.option("--job", default="", metavar="JOB", help="An access token: a password for ssh into this job alone.")
@click.option("--ssh", is_flag=True, help="An access token for any job that its user may enter.")
@click.option("--role", type=click.Choice(["read", "write", "admin"]), default="admin",
              help="The most the login is good for.  [what its user may do]")  # fmt: skip
@system_options
@output_option
def create(
    user: str, ttl: float | None, lasts: float | None, job: str, ssh: bool, role: str, nats: str | None,
    org: str | None, output: str,
) -> None:  # fmt: skip
    """Make a token for one login. It is printed once, and kept nowhere. For others: admins.

    With --job or --ssh it is an access token: the password of plain ssh, for a machine without a key. It lets in as its
    user, who must be one whom the run names, as often as wanted until its time is over.

    \b
    JSON: {"id", "token", "user", "role", "expires", "job"}
    """
    if (job or ssh) and (lasts or role != "admin"):
        raise Failure("--lasts and --role are of logins; an access token is none", code=USAGE)
    target = find(nats, org)
    body = {
        "user": user,
        "role": role,
        "job": job,
        "ssh": ssh,
        **({"ttl": ttl} if ttl else {}),
        **({"lasts": lasts} if lasts else {}),
    }
    made = run_async(_call(target, "token-create", body))
    if output == "json":
        out_json(made)
        return
    out(made["token"])
    if job or ssh:
        what = f"the job {job}" if job else f"the jobs of {target.org} that {made['user']} may enter"
        say(f"a password for ssh into {what}, until {made['expires'][11:16]} UTC:", "green")
        say(f"  {run_async(_command(target, job))}   (PuTTY: plink -pw)")
        return
    say(f"a token for {made['user']} in {target.org}, for one login until {made['expires'][11:16]} UTC:", "green")
    say(f"  pitstop login nats://{place_of(target.nats)} --token-stdin")


@command.command("ls")
@system_options
@output_option
def ls(nats: str | None, org: str | None, output: str) -> None:
    """List your tokens and logins; for admins, everybody's.

    \b
    JSON: {"passes": [{"id", "kind": token | login | ssh, "user", "role", "by", "created", "expires", "job"}]}
    """
    answer = run_async(_call(find(nats, org), "token-ls", {}))
    if output == "json":
        out_json(answer)
        return
    rows: list[tuple[str, ...]] = []
    for one in answer["passes"]:
        bound = "-" if one["role"] == "admin" else one["role"]
        bound = f"ssh {one['job'] or 'any job'}" if one["kind"] == "ssh" else bound
        rows.append((one["id"], one["user"], bound, one["by"], one["created"][:16], one["expires"][:16]))
    table(("ID", "USER", "AT MOST", "BY", "CREATED", "EXPIRES"), rows)


@command.command("revoke")
@click.argument("id", metavar="ID")
@system_options
def revoke(id: str, nats: str | None, org: str | None) -> None:
    """End a token or a login: it lets nobody in any more. A connection it made lives 5 minutes more at the most."""
    run_async(_call(find(nats, org), "token-revoke", {"id": id}))
    say(f"revoked {id}")


@command.command("key")
@click.argument("file", type=click.Path(path_type=Path))
def key(file: Path) -> None:
    """Make the key in FILE (0600), unless it is there, with which the scheduler signs people's rights (for whoever
    operates NATS: PITSTOP_CALLOUT_KEY). Prints the public half: `issuer` of auth_callout in the server's file."""
    from pitstop_common.errors import ConfigError

    try:
        out(callout_key(file))
    except (OSError, ConfigError) as error:
        raise Failure(f"{file}: {error}", code=USAGE) from None


def callout_key(file: Path) -> str:
    """The public half of the key in a file, made there if need be. Raises OSError, ConfigError."""
    from pitstop_common.nkeys import AccountKey

    if not file.exists():
        write_private(file, AccountKey.generate().seed + "\n")
    return AccountKey.from_seed(file.read_text()).public


async def _call(target: Target, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call(verb, body)


async def _command(target: Target, job: str) -> str:
    """What to type, as far as it is known yet."""
    found: list[dict[str, Any]] = []
    if job:
        async with connect(target) as client:
            found = (await client.call("status", {"run": job}))["jobs"]
    report = next((entry.get("report") for entry in found if entry["job"]["job"] == job), None) or {}
    command = str((report.get("ssh") or {}).get("command") or f"ssh {job or 'JOB'}@RELAY")
    return plain(command.replace("ssh ", "ssh -o PubkeyAuthentication=no ", 1))
