"""The `pitstop` command. Each verb's module is imported only when the verb is used: `--help` stays quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from pitstop_cli import VERSION
from pitstop_cli.console import say
from pitstop_cli.exits import INTERRUPTED, Failure

_VERBS: Final = {
    "up": "Start the whole system on this machine.",
    "run": "Request a run of a workflow file, and follow it.",
    "rerun": "Do a run again: all of it, or what failed.",
    "ssh": "Step into a job.",
    "exec": "Run one command in a job, and say how it ended.",
    "status": "Show a run, or the newest ones.",
    "logs": "Show the output of a run.",
    "audit": "Who was in a run, and what they did there.",
    "recordings": "Terminals that were recorded in a run.",
    "ls": "List runs, or who holds which slot (--ssh).",
    "top": "Who holds which slot and who waits, live.",
    "pause": "Hold a running job at the end of its step, and step in.",
    "extend": "Keep a session longer.",
    "hold": "Have failures to come wait for a person.",
    "cancel": "End a run, a job, or idle sessions.",
    "org": "Limits and roles of an org, and what is in use.",
    "apply": "Set limits, roles and rules of an org from a file.",
    "hosts": "Sandbox hosts, and which take no new job.",
    "login": "Log in to a system with a token.",
    "logout": "End the login.",
    "token": "Tokens that people log in with.",
    "keys": "The public keys that let you in.",
    "secrets": "Secrets of an org, and who may use them.",
    "dlq": "Messages that could not be used.",
    "doctor": "Check this machine and the connection.",
    "verify": "Prove that no slot was given twice.",
    "relay-key": "The host key of the relays: show it, change it.",
    "serve": "Run one service: scheduler, sandbox, relay or janitor.",
}
_GROUPS: Final = {
    "Main": ("up", "run", "rerun", "ssh", "exec", "status", "logs", "audit", "recordings"),
    "Manage": ("login", "logout", "token", "ls", "top", "pause", "extend", "hold", "cancel", "keys", "secrets", "dlq"),
    "Operate": ("hosts", "org", "apply", "doctor", "verify", "relay-key", "serve"),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"pitstop_cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _VERBS[name]) for name in names])


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="pitstop")
def pitstop() -> None:
    """CI jobs in sandboxes that you can step into over SSH.

    \b
    Start here:  pitstop up                                 (in one terminal)
                 pitstop keys add ~/.ssh/id_ed25519.pub
                 pitstop run --ssh-on-failure               (in a checkout)
    """


def main(argv: list[str] | None = None) -> int:
    """The process. Returns the exit code."""
    try:
        result: Any = pitstop.main(args=argv, prog_name="pitstop", standalone_mode=False)
    except Failure as failure:
        say(f"pitstop: {failure.what}", "red")
        if failure.next:
            say(f"  {failure.next}")
        return failure.code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
