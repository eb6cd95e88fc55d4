"""`pitstop doctor`: what this machine and the connection are fit for, with one fix for each fault."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from pitstop_cli.client import output_option, run_async, system_options
from pitstop_cli.console import out, out_json, styled


@click.command("doctor")
@system_options
@output_option
def command(nats: str | None, org: str | None, output: str) -> int:
    """Check this machine and the connection.

    JSON: {"ok": bool, "checks": [{"name", "state": "ok|warn|fail", "found", "fix"}]}. Exit code: 0, or 1 with a fail.
    """
    from pitstop_cli import checks

    found = [*checks.machine(), *run_async(checks.system(nats, org))]
    broken = any(check.state == "fail" for check in found)
    if output == "json":
        out_json({"ok": not broken, "checks": msgspec.to_builtins(found)})
    else:
        _print(found)
    return 1 if broken else 0


def _print(found: list[Any]) -> None:
    import sys

    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max(len(check.name) for check in found)
    for check in found:
        out(f"{styled(f'{check.state:<4}', styles[check.state], sys.stdout)}  {check.name:<{width}}  {check.found}")
        if check.state != "ok":
            out(f"{'':<{width + 8}}fix: {check.fix}")
