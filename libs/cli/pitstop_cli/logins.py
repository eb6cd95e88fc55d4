"""The logins of this user: a file of its own (0600) in the folder of settings. Each is for one org of one system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pitstop_cli.exits import AUTH, USAGE, Failure
from pitstop_cli.paths import write_private

NEXT = (
    "log in: pitstop login URL --token-stdin   (a token: whoever is an admin types `pitstop token create --user YOU`)"
)


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """`nats` holds the credential. `expires` RFC 3339."""

    nats: str
    id: str
    org: str
    actor: str
    expires: str

    @property
    def place(self) -> str:
        """`host:port`."""
        return place_of(self.nats)


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """PITSTOP_CONFIG_DIR, XDG_CONFIG_HOME/pitstop, ~/.config/pitstop."""
    named = environ.get("PITSTOP_CONFIG_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "pitstop"


def logins(environ: Mapping[str, str] = os.environ) -> list[Login]:
    """All of them. Raises Failure."""
    file = config_dir(environ) / "logins.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Login])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise Failure(f"cannot read {file}: {error}", next="remove it, and log in again", code=AUTH) from None


def keep(login: Login, environ: Mapping[str, str] = os.environ) -> Path:
    """Remember a login, in place of an earlier one for the same org of the same system."""
    return _write([one for one in logins(environ) if not _same(one, login)] + [login], environ)


def forget(login: Login, environ: Mapping[str, str] = os.environ) -> None:
    """Remember it no more."""
    _write([one for one in logins(environ) if one.id != login.id], environ)


def choose(nats: str, org: str, environ: Mapping[str, str] = os.environ) -> Login | None:
    """The login for a system (`nats`, empty: any) and an org (empty: any). None: there is none. Raises Failure (exit 2)
    where several fit, and lists them."""
    found = [one for one in logins(environ) if (not nats or one.place == place_of(nats)) and org in {"", one.org}]
    if len(found) > 1:
        listed = "\n  ".join(f"--org {one.org}   # {one.actor} at {one.place}" for one in found)
        raise Failure("you are logged in several times; name one", next=f"{listed}\n  (and --nats URL)", code=USAGE)
    return found[0] if found else None


def place_of(url: str) -> str:
    """`host:port` of a NATS URL. Raises Failure (exit 2)."""
    try:
        parts = urlsplit(url.split(",")[0])
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise Failure("the URL of a system is nats://host:port", code=USAGE)
    return f"{host}:{port or 4222}"


def _same(one: Login, other: Login) -> bool:
    return (one.place, one.org) == (other.place, other.org)


def _write(all: list[Login], environ: Mapping[str, str]) -> Path:
    folder = config_dir(environ)
    file = folder / "logins.json"
    write_private(file, msgspec.json.format(msgspec.json.encode(all), indent=1).decode() + "\n")
    return file
