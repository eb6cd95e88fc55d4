"""`pitstop dlq`: messages that could not be used."""

from __future__ import annotations

import json
from typing import Any

import click

from pitstop_cli.client import connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say


@click.group("dlq")
def command() -> None:
    """Messages that could not be used: kept for 30 days, with the reason."""


@command.command("ls")
@system_options
@output_option
def ls(nats: str | None, org: str | None, output: str) -> None:
    """List them, oldest first.

    JSON: {"letters": [{"seq", "time", "stream", "subject", "org", "reason", "bytes"}]}
    """
    answer = _call(nats, org, "dlq-ls", {})
    if output == "json":
        out_json(answer)
        return
    letters = answer.get("letters", [])
    if not letters:
        say("no message is kept: all could be used")
        return
    from pitstop_cli.commands.ls import table

    heads = ("SEQ", "TIME", "SUBJECT", "BYTES", "REASON")
    table(heads, [tuple(plain(str(letter.get(head.lower(), ""))) for head in heads) for letter in letters])


@command.command("show")
@click.argument("seq", type=int)
@system_options
@output_option
def show(seq: int, nats: str | None, org: str | None, output: str) -> None:
    """Show one: why it could not be used, and what it was.

    JSON: as the request api.<org>.<actor>.dlq-show answers.
    """
    answer = _call(nats, org, "dlq-show", {"seq": seq})
    if output == "json":
        out_json(answer)
        return
    for name, value in answer.items():
        shown = plain(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        out(f"{name}: {shown}")


@command.command("replay")
@click.argument("seq", type=int)
@system_options
def replay(seq: int, nats: str | None, org: str | None) -> None:
    """Publish one again, as it was: after what was wrong around it has been put right."""
    _call(nats, org, "dlq-replay", {"seq": seq})
    say(f"message {seq} was published again; `pitstop ls` shows its run, `pitstop dlq ls` if it failed once more")


def _call(nats: str | None, org: str | None, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async def call() -> dict[str, Any]:
        async with connect(find(nats, org)) as client:
            return await client.call(verb, body)

    return run_async(call())
