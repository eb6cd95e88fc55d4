"""`pitstop audit`: who was in a run, and what they did there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, say


@click.command("audit")
@click.argument("run", metavar="RUN|JOB")
@system_options
@output_option
def command(run: str, nats: str | None, org: str | None, output: str) -> None:
    """Show who entered a run, or was refused, from where, with which key; what they opened; who continued, retried,
    extended or cancelled it. Kept for 7 days.

    JSON: one entry a line, in order: {"seq", "type", "time", "stored", "job", "attempt", "user", "session", "client",
    "fingerprint", "kind", "what", "count", "reason", "step", "seconds"}.
    """
    from pitstop_cli.audits import audit_lines, joined

    entries = list(joined(run_async(_read(find(nats, org), run))))
    if output == "json":
        for entry in entries:
            out_json(entry)
        return
    if not entries:
        from pitstop_common.streams import FACTS_DAYS

        say(f"nothing is known of it any more: an audit is kept for {FACTS_DAYS} days")
        return
    for line in audit_lines(entries):
        out(line)


async def _read(target: Target, run: str) -> list[dict[str, Any]]:
    async with connect(target) as client:
        return [entry async for entry in _entries(client, run)]


async def _entries(client: Client, run: str) -> AsyncIterator[dict[str, Any]]:
    after, pending = 0, 1
    while pending:
        reply = await client.call("audit", {"run": run, "after": after})
        for entry in reply["entries"]:
            yield entry
        after, pending = reply["after"], reply["pending"]
