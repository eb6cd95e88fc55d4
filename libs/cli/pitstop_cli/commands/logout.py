"""`pitstop logout`: the login ends, here and for the system."""

from __future__ import annotations

import click

from pitstop_cli.client import connect, find, run_async, system_options
from pitstop_cli.console import say
from pitstop_cli.exits import AUTH, Failure
from pitstop_cli.logins import Login, choose, forget


@click.command("logout")
@system_options
def command(nats: str | None, org: str | None) -> None:
    """End the login, and forget it. Other logins of yours go on (`pitstop token ls`)."""
    login = choose(nats or "", org or "")
    if login is None:
        raise Failure("you are not logged in" + (f" to {org}" if org else ""), code=AUTH)
    try:
        run_async(_revoke(login))
    except Failure as failure:
        forget(login)
        raise Failure(
            f"the login is forgotten here, but the system was not told: {failure.what}", code=failure.code,
            next=f"an admin can end it: pitstop token revoke {login.id}",
        ) from None  # fmt: skip
    forget(login)
    say(f"logged out of {login.org} at {login.place}")


async def _revoke(login: Login) -> None:
    async with connect(find(login.nats, login.org)) as client:
        await client.call("token-revoke", {"id": login.id})
