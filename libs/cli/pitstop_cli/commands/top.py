"""`pitstop top`: who holds which slot, and who waits, live."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json
from pitstop_cli.exits import OK, Failure

_EVERY_SECONDS: Final = 2.0
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"


@click.command("top")
@click.option("--once", is_flag=True, help="Print the table once, also on a terminal.")
@system_options
@output_option
def command(once: bool, nats: str | None, org: str | None, output: str) -> int:
    """Show who holds which slot: since when, idle for how long, until when; and who waits, where and why.

    On a terminal the list is live until Ctrl-C. Off a terminal, and with --once, it is printed once.

    \b
    JSON, once: {"runs": [RunView], "jobs": [JobView], "slots": {"limit", "used", "debug"}, "waiting": count,
    "queue": [{"job", "run", "project", "key", "actor", "priority", "queued", "position", "reason"}], "now"}, as the
    request api.<org>.<actor>.ls with {"slots": true} answers. The queue shows its first 50.
    """
    live = output != "json" and not once and sys.stdout.isatty()
    return run_async(_top(find(nats, org), live=live, as_json=output == "json"))


async def _top(target: Target, *, live: bool, as_json: bool) -> int:
    from pitstop_cli.tables import top_lines

    async with connect(target) as client:
        if live:
            with _screen(), _quietly():
                await _refresh(client, target.org)
            return OK
        answer = await client.call("ls", {"slots": True})
    if as_json:
        out_json(answer)
        return OK
    for line in top_lines(answer, target.org):
        out(line)
    return OK


async def _refresh(client: Client, org: str) -> None:
    from pitstop_cli.tables import screen, top_lines
    from pitstop_common.errors import PitstopError

    lines: list[str] = []
    while True:
        trouble = ""
        try:
            answer: dict[str, Any] = await client.call("ls", {"slots": True})
            lines = top_lines(answer, org)
        except (Failure, PitstopError) as error:
            trouble = f"no answer: {error}; trying again"
        width, height = shutil.get_terminal_size()
        shown = screen([*([trouble, ""] if trouble else []), *lines], width, height)
        # Each line is drawn over the one before it: a screen that is cleared first would flicker.
        sys.stdout.write("\x1b[H" + "\x1b[K\r\n".join(shown) + "\x1b[K\x1b[J")
        sys.stdout.flush()
        await asyncio.sleep(_EVERY_SECONDS)


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own; the one before is back at the end."""
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


@contextmanager
def _quietly() -> Iterator[None]:
    """Ctrl-C is how a live list is left."""
    try:
        yield
    except asyncio.CancelledError:
        return
