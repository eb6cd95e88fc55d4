"""`pitstop relay-key`: the host key by which people know the relays, and its change without a question to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pitstop_cli import relay_keys
from pitstop_cli.console import out, out_json, say

_AFTER = "  have the same files on every relay, and restart them one by one: they are read at the start"


def _file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--file", "file", type=click.Path(path_type=Path, dir_okay=False), callback=_file,
        help="The key in use.  [default: PITSTOP_SSH_HOST_KEY, else that of `pitstop up`]",
    )(command)  # fmt: skip


def _file(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path:
    from pitstop_cli.paths import state_dir
    from pitstop_common.host_keys import KEY_FILE

    named = os.environ.get("PITSTOP_SSH_HOST_KEY")
    return value or (Path(named) if named else state_dir() / "relay" / KEY_FILE)


@click.group("relay-key")
def command() -> None:
    """The host key of the relays. All of them have the same one; clients know it by a line of known_hosts.

    \b
    To change it while people work, with no question to anybody:
      1. pitstop relay-key next      copy FILE.next to every relay, and restart them one by one (each hands
                                     out both lines now, and OpenSSH clients with UpdateHostKeys learn it)
      2. wait: as long as sessions and handed-out lines live (a day)
      3. pitstop relay-key switch    copy the files to every relay, and restart them one by one
      4. pitstop relay-key retire    the same, when all of them show the new key

    \b
    With a host certificate clients trust its authority, and no key has to be known ahead:
      ssh-keygen -s CA_KEY -h -I relay -n HOST -V +52w FILE.pub    (FILE-cert.pub; the relays take it)
    """


@command.command("show")
@_file_option
@click.option("--host", help="Print lines of known_hosts for this address.")
@click.option("--port", type=click.IntRange(1, 65535), default=2222, show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def show(file: Path, host: str | None, port: int, output: str) -> None:
    """Show the key in use, the next and the old one, with their fingerprints.

    JSON: {"keys": [{"state", "file", "key", "fingerprint", "authority", "certificate"}], "known_hosts": [lines]}.
    """
    keys = relay_keys.all_of(file)
    lines = relay_keys.known_hosts(keys, host, port) if host else []
    if output == "json":
        out_json({"keys": [{**key._asdict(), "file": str(key.file)} for key in keys], "known_hosts": lines})
    elif host:
        out("\n".join(lines))
    else:
        for key in keys:
            valid = f"  certificate valid {key.certificate}" if key.certificate else ""
            out(f"{key.state:<8} {key.fingerprint}  {key.file}{valid}")


@command.command("next")
@_file_option
def next_(file: Path) -> None:
    """Make the key that will be in use, beside the one that is. Nothing changes for anybody yet."""
    relay_keys.all_of(file)
    made = relay_keys.make_next(file)
    say(f"made {made}", "green")
    say(_AFTER)


@command.command("switch")
@_file_option
def switch(file: Path) -> None:
    """Put the next key in use; the one so far is kept as the old one, which clients may still meet on other relays."""
    relay_keys.all_of(file)
    relay_keys.switch(file)
    say(f"{file} is the new key now", "green")
    say(_AFTER)


@command.command("retire")
@_file_option
def retire(file: Path) -> None:
    """Forget the old key, when every relay shows the new one: OpenSSH clients drop its line at their next login."""
    relay_keys.all_of(file)
    if relay_keys.retire(file):
        say("the old key is removed here", "green")
        say(_AFTER)
    else:
        say("there is no old key")
