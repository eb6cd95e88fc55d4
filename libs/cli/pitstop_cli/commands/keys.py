"""`pitstop keys`: whose public keys let them in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pitstop_cli.client import Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say
from pitstop_cli.exits import USAGE, Failure
from pitstop_cli.words import span


@click.group("keys")
def command() -> None:
    """The public keys that let you into your runs."""


@command.command("add")
@click.argument("source", metavar="FILE|-")
@system_options
@output_option
def add(source: str, nats: str | None, org: str | None, output: str) -> None:
    """Register the public keys in FILE (a .pub file, or - for stdin), one a line."""
    keys = read_keys(source)
    target = find(nats, org)
    added = run_async(_each(target, "keys-add", [{"key": key} for key in keys]))
    if output == "json":
        out_json({"keys": added})
        return
    for key in added:
        say(f"added {key['fingerprint']} {plain(key.get('comment', ''))}".rstrip() + f" for {target.actor}")


@command.command("ls")
@system_options
@output_option
def ls(nats: str | None, org: str | None, output: str) -> None:
    """List your keys.

    \b
    JSON: {"keys": [{"key", "fingerprint", "comment", "added"}],
           "links": [{"source", "url", "link": "" = the org's own, "keys": [fingerprint], "read", "age", "trouble"}]}
    """
    target = find(nats, org)
    answer = run_async(_each(target, "keys-ls", [{}]))[0]
    if output == "json":
        out_json({"keys": answer.get("keys", []), "links": answer.get("links", [])})
        return
    if not answer.get("keys") and not answer.get("links"):
        say(f"{target.actor} has no key in {target.org}; add one: pitstop keys add ~/.ssh/id_ed25519.pub")
    for key in answer.get("keys", []):
        out(f"{key['fingerprint']}  {key['key'].split()[0]}  {plain(key.get('comment', ''))}".rstrip())
    for link in answer.get("links", []):
        for fingerprint in link["keys"]:
            out(f"{fingerprint}  {plain(link['source'])}  read {span(link['age'])} ago from {plain(link['url'])}")
        if link["trouble"] or not link["keys"]:
            say(f"{plain(link['source'])}: {plain(link['trouble']) or 'no key there'} ({plain(link['url'])})", "yellow")


@command.command("link")
@click.argument("source", metavar="github:NAME|org:NAME|URL")
@system_options
@output_option
def link(source: str, nats: str | None, org: str | None, output: str) -> None:
    """Let in the keys of your account elsewhere: github:NAME, gitlab:NAME, codeberg:NAME, org:NAME (the server that the
    admins of your org have set), or the URL of its keys.

    They are read there again and again, so a key that you remove there lets nobody in after 5 minutes.

    \b
    JSON: {"source", "url", "link", "keys": [fingerprint], "read", "age", "trouble"}
    """
    answer = run_async(_each(find(nats, org), "keys-link", [{"source": source}]))[0]
    if output == "json":
        out_json(answer)
        return
    for fingerprint in answer["keys"]:
        out(fingerprint)
    count = len(answer["keys"])
    say(f"linked {plain(answer['source'])}: {count} key{'s' * (count != 1)} at {plain(answer['url'])}",
        "green" if count else "yellow")  # fmt: skip


@command.command("unlink")
@click.argument("source", metavar="SOURCE")
@system_options
def unlink(source: str, nats: str | None, org: str | None) -> None:
    """Forget a link, named as `pitstop keys ls` does (github:NAME)."""
    run_async(_each(find(nats, org), "keys-unlink", [{"source": source}]))
    say(f"unlinked {plain(source)}")


@command.command("rm")
@click.argument("fingerprint", metavar="FINGERPRINT|FILE")
@system_options
def rm(fingerprint: str, nats: str | None, org: str | None) -> None:
    """Remove a key, named by its fingerprint (SHA256:…) or its .pub file."""
    wanted = [fingerprint]
    if not fingerprint.startswith("SHA256:"):
        from pitstop_common.public_keys import parse_public_key

        wanted = [parse_public_key(key).fingerprint for key in read_keys(fingerprint)]
    run_async(_each(find(nats, org), "keys-rm", [{"fingerprint": one} for one in wanted]))
    say("removed " + ", ".join(wanted))


def read_keys(source: str) -> list[str]:
    """The keys in a file or in stdin (`-`), each checked. Raises Failure that names the line."""
    from pitstop_common.public_keys import BadKey, parse_public_key

    text, name = _text(source)
    if "PRIVATE KEY" in text:
        public = f"{source}.pub"
        raise Failure(f"{name} is a private key; only public keys are registered",
                      next=f"pitstop keys add {public}", code=USAGE)  # fmt: skip
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            parse_public_key(line)
        except BadKey as error:
            raise Failure(f"{name}:{number}: {error}", code=USAGE) from None
        keys.append(line.strip())
    if not keys:
        raise Failure(f"{name} holds no key", next="make one: ssh-keygen -t ed25519", code=USAGE)
    return keys


def _text(source: str) -> tuple[str, str]:
    if source == "-":
        return sys.stdin.read(), "stdin"
    path = Path(source).expanduser()
    try:
        return path.read_text(errors="replace"), source
    except FileNotFoundError:
        raise Failure(f"there is no file {source}", next="make a key: ssh-keygen -t ed25519", code=USAGE) from None
    except OSError as error:
        raise Failure(f"cannot read {source}: {error.strerror}", code=USAGE) from None


async def _each(target: Target, verb: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async with connect(target) as client:
        return [await client.call(verb, body) for body in bodies]
