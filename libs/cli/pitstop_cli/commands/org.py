"""`pitstop org`: the limits of an org, and what is in use."""

from __future__ import annotations

from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json
from pitstop_cli.exits import USAGE, Failure


@click.group("org")
def command() -> None:
    """Limits of an org. They are set with `pitstop apply`."""


@command.command("show")
@click.argument("name", required=False, metavar="[ORG]")
@system_options
@output_option
def show(name: str | None, nats: str | None, org: str | None, output: str) -> None:
    """Show the limits of ORG, and how much of them is in use; and the pools that the orgs share.

    \b
    JSON: {"org", "configured", "slots": 0 = no limit, "own_slots": null = the default, "used", "debug", "waiting",
    "weight", "projects": {name: slots}, "used_by_project", "pressure": seconds, "max_duration": seconds,
    "longest_session": seconds, "roles": null = no table, "rules": {project: {"ssh", "ssh_role", "roles"}}, "role": your
    own, "pools": [{"pool", "slots", "own_slots", "used": by all orgs, "places"}]}
    """
    view = run_async(_show(find(nats, one_org(name, org, "the argument"))))
    if output == "json":
        out_json(view)
        return
    import msgspec

    from pitstop_cli.org_words import org_lines
    from pitstop_common.api_orgs import OrgView

    for line in org_lines(msgspec.convert(view, OrgView)):
        out(line)


def one_org(named: str | None, option: str | None, where: str) -> str | None:
    """The org, named at two places. Raises Failure when they differ."""
    if named and option and named != option:
        raise Failure(f"{where} says org {named}, --org says {option}", next="leave one away", code=USAGE)
    return named or option


async def _show(target: Target) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call("org-show", {})
