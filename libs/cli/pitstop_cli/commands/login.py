"""`pitstop login`: a token becomes a login of one's own, kept in this user's folder."""

from __future__ import annotations

import hashlib
import secrets
import sys
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import click

from pitstop_cli.client import Target, connect, output_option, run_async
from pitstop_cli.console import out_json, say
from pitstop_cli.exits import AUTH, USAGE, Failure
from pitstop_cli.logins import Login, keep, place_of


@click.command("login")
@click.argument("url", metavar="URL")
@click.option("--token-stdin", is_flag=True, help="Read the token from stdin.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the token from a file.")
@output_option
def command(url: str, token_stdin: bool, token_file: Path | None, output: str) -> None:
    """Log in to the system at URL (nats://host:port, or tls://) with a token that an admin made.

    The token is used up. Your login is kept in ~/.config/pitstop/logins.json (0600): it says which org you are in and
    who you are. The token may also stand in the URL: nats://TOKEN@host:port.

    \b
    JSON: {"id", "org", "user", "role", "expires", "nats": host:port}
    """
    text = _token(url, token_stdin, token_file)
    login, role = run_async(_login(url, text))
    file = keep(login)
    if output == "json":
        out_json({"id": login.id, "org": login.org, "user": login.actor, "role": role, "expires": login.expires,
                  "nats": login.place})  # fmt: skip
        return
    say(f"logged in at {login.place} as {login.actor} of {login.org}, until {login.expires[:10]}")
    if role != "admin":
        say(f"  this login is good for what takes the role {role} at most")
    say(f"  kept in {file}; it ends with `pitstop logout`")


def _token(url: str, from_stdin: bool, file: Path | None) -> str:
    place_of(url)
    inside = unquote(urlsplit(url).username or "")
    if sum((bool(inside), from_stdin, file is not None)) != 1:
        raise Failure("give the token once: --token-stdin, --token-file FILE, or nats://TOKEN@host:port", code=USAGE)
    if file is not None:
        try:
            inside = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", "") or "it is not text"
            raise Failure(f"cannot read {file}: {why}", code=USAGE) from None
    elif from_stdin:
        inside = sys.stdin.readline()
    if inside.strip().count(".") != 3:
        raise Failure("this is not a token", next="an admin makes one: pitstop token create --user YOU", code=USAGE)
    return inside.strip()


async def _login(url: str, token: str) -> tuple[Login, str]:
    org, user, id, secret = token.split(".")
    own = secrets.token_urlsafe(32)
    target = Target(nats=with_user(url, id, secret), org=org, actor=user)
    try:
        async with connect(target) as client:
            hash = hashlib.sha256(own.encode()).hexdigest()
            made = await client.call("login", {"token": token, "hash": hash})
    except Failure as failure:
        if failure.code != AUTH:
            raise
        raise Failure(
            f"the token is not taken: {failure.what}", code=AUTH,
            next="it is good for one login, for 15 minutes by default; another: pitstop token create --user YOU",
        ) from None  # fmt: skip
    login = Login(nats=with_user(url, made["id"], own), id=made["id"], org=made["org"], actor=made["user"],
                  expires=made["expires"])  # fmt: skip
    return login, str(made["role"])


def with_user(url: str, user: str, password: str) -> str:
    """The URL with another credential in it."""
    parts = urlsplit(url.split(",")[0])
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user)}:{quote(password)}@{host}"))
