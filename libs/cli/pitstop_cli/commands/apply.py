"""`pitstop apply`: limits, roles and rules of an org, and limits of pools, from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, say
from pitstop_cli.exits import USAGE, Failure

if TYPE_CHECKING:
    from pitstop_cli.org_file import OrgFile

_MAX_BYTES: Final = 128 * 1024
_HELP: Final = """\
Set limits, roles and rules of an org to what a file says, at once, without a question; the difference is told.

The file says everything of its org: what it leaves out becomes the default. Lower limits end nothing that runs; no
further job starts until enough have ended.

Pools are shared by all orgs. So a file sets those only that it names, and an admin of the deployment (`*/user` in
the schedulers' PITSTOP_ADMINS) applies it. A file may be about pools only, without an org.

\b
org = "acme"
slots = 8                  # jobs at once, 0 = no limit   [the scheduler's PITSTOP_ORG_SLOTS]
weight = 2                 # share when orgs compete      [1]
pressure = "5m"            # idle limit while jobs wait   [5m]
max_duration = "1h"        # of a session, by default     [1h]
longest_session = "2h"     # of a session, at most        [2h]
[projects.web]
slots = 2                  #                              [the scheduler's PITSTOP_PROJECT_SLOTS]
ssh = false                # no session in this project   [true]
ssh_role = "admin"         # what it takes to enter       [write]
recording = true           # what terminals show is kept  [false]
forwarding = false         # also: terminal, exec, sftp, agent; each [true]
[projects.web.roles]       # over those of the org
bob = "read"
[roles]                    # none, read, write or admin   [no table: everybody has write]
ada = "admin"
"*" = "read"               # everybody who is not named   [none]
[ssh]                      # who people are, docs/access.md
keys_url = "https://git.example/{user}.keys"
keys_token = "CONTEXT/NAME"    # a secret, sent there as a bearer token
user_ca = ["ssh-ed25519 AAAA"] # authorities of certificates
[ssh.principals]           # where one is not the user of the same name
"ada@example.com" = "ada"
[ssh.revoked]              # certificates
serials = [7]              # also: ids = ["ada laptop"], keys = ["SHA256:…"]
[pools.default]            # in this file, or in one of its own
slots = 20                 # jobs of all orgs at once     [the scheduler's PITSTOP_POOL_SLOTS]

\b
JSON: {"changes": [{"key", "old", "new"}], "applied": bool, "now": as of `pitstop org show -o json`};
of a wrong file {"errors": [{"line", "pointer", "message"}]}, exit code 2.
"""


@click.command("apply", help=_HELP)
@click.option("-f", "--file", "source", required=True, metavar="FILE|-", help="Limits, roles and rules, as TOML.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@system_options
@output_option
def command(source: str, dry_run: bool, nats: str | None, org: str | None, output: str) -> None:
    from pitstop_cli.commands.org import one_org

    file = _read(source, as_json=output == "json")
    target = find(nats, one_org(file.org or None, org, source))
    answer = run_async(_apply(target, file, dry_run=dry_run))
    if output == "json":
        out_json(answer)
        return
    _tell(answer, file, dry_run=dry_run)


def _read(source: str, *, as_json: bool) -> OrgFile:
    from pitstop_cli.org_file import BadOrgFile, read_org_file

    name = "stdin" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or "it is not UTF-8 text"
        raise Failure(f"cannot read {name}: {why}", code=USAGE) from None
    if len(text) > _MAX_BYTES:
        raise Failure(f"{name} is larger than {_MAX_BYTES // 1024} KiB", code=USAGE)
    try:
        return read_org_file(text)
    except BadOrgFile as bad:
        if as_json:
            out_json({"errors": [{"line": f.line, "pointer": f.pointer, "message": f.message} for f in bad.faults]})
        what = "\n".join([f"{name} is wrong, nothing was changed:", *bad.lines(name)])
        raise Failure(what, next="what a file may say: pitstop apply --help", code=USAGE) from None


async def _apply(target: Target, file: OrgFile, *, dry_run: bool) -> dict[str, Any]:
    import msgspec

    from pitstop_cli.org_words import differences, pool_differences
    from pitstop_common.api_orgs import OrgView

    async with connect(target) as client:
        now = await client.call("org-show", {})
        view = msgspec.convert(now, OrgView)
        pools = pool_differences(view.pools, file.pools)
        limits = differences(view, file.limits) if file.org else []
        applied = bool(pools or limits) and not dry_run
        if applied and pools:  # the first, because it takes more
            await client.call("pools-apply", {"pools": msgspec.to_builtins(file.pools)})
        if applied and limits:
            await client.call("org-apply", msgspec.to_builtins(file.limits))
        if applied:
            now = await client.call("org-show", {})
    return {"changes": msgspec.to_builtins([*limits, *pools]), "applied": applied, "now": now}


def _tell(answer: dict[str, Any], file: OrgFile, *, dry_run: bool) -> None:
    import msgspec

    from pitstop_cli.org_words import Difference, difference_lines

    if not answer["changes"]:
        about = f"org {file.org} is" if file.org else "the pools are"
        say(f"{about} as the file says: nothing to change")
        return
    out(f"org {file.org}" if file.org else "pools")
    for line in difference_lines(msgspec.convert(answer["changes"], list[Difference])):
        out(line)
    if dry_run:
        say("nothing was changed (--dry-run)")
        return
    say(f"applied to {file.org or 'the pools'}", "green")
    now = answer["now"]
    _tell_above("", now if file.org else {})
    for pool in now["pools"]:
        _tell_above(f"pool {pool['pool']}: ", pool if pool["pool"] in file.pools else {})


def _tell_above(what: str, now: dict[str, Any]) -> None:
    if now and now["slots"] and now["used"] > now["slots"]:
        text = (
            f"{now['used']} slots are in use; nothing is ended, and none is given until fewer than {now['slots']} are"
        )
        say(f"  {what}{text}")
