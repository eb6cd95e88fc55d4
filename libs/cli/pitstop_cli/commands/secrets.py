"""`pitstop secrets`: contexts (named groups of secrets), and who may use them. Values go in, and never come out."""

from __future__ import annotations

import sys
from typing import Any

import click

from pitstop_cli.client import connect, find, output_option, run_async, system_options
from pitstop_cli.console import out, out_json, plain, say, styled
from pitstop_cli.exits import USAGE, Failure


@click.group("secrets")
def command() -> None:
    """Secrets of an org, in contexts. A run that names a context gets its secrets as variables.

    \b
    pitstop secrets set deploy API_TOKEN        (asks for the value, or reads it from stdin)
    pitstop run --secrets deploy
    """


@command.command("set")
@click.argument("context")
@click.argument("name")
@system_options
@output_option
def set_(context: str, name: str, nats: str | None, org: str | None, output: str) -> None:
    """Set the secret NAME of CONTEXT, which is made if need be.

    The value is asked for without showing it, or read from stdin: one line without its newline, several lines as they
    are. It is never an argument: those can be read by every program of this machine.

    \b
    pitstop secrets set deploy API_TOKEN < token.txt
    JSON: the context, as of `secrets ls`.
    """
    from pitstop_common.limits import MIN_MASKED

    value = _value(f"{context}/{name}")
    answer = _call("secrets-set", {"context": context, "name": name, "value": value}, nats, org)
    if output == "json":
        out_json(answer)
        return
    say(f"set {name} in context {context}", "green")
    if len(value.encode()) < MIN_MASKED:
        say(f"  it is shorter than {MIN_MASKED} bytes: too short to be hidden in logs", "yellow")
    if len(answer["secrets"]) == 1 and answer["members"] is None:
        say(f"  everybody of the org can use it; to close it: pitstop secrets restrict {context} --members USER,…")


@command.command("ls")
@click.argument("context", required=False)
@system_options
@output_option
def ls(context: str | None, nats: str | None, org: str | None, output: str) -> None:
    """List contexts and the names of their secrets, who set them and when. Values are never shown.

    JSON: {"contexts": [{"context", "members", "projects", "publisher", "time", "by", "secrets": [{"name", "time",
    "by"}]}], "unusable", "old"}; members and projects null: all of the org.
    """
    answer = _call("secrets-ls", {"context": context}, nats, org)
    if output == "json":
        out_json(answer)
        return
    if answer.get("unusable"):
        say(f"secrets cannot be used: {answer['unusable']}", "yellow")
    if not answer["contexts"]:
        say("there is no context; make one: pitstop secrets set CONTEXT NAME")
    for found in answer["contexts"]:
        _print(found)


@command.command("rm")
@click.argument("context")
@click.argument("name", required=False)
@system_options
def rm(context: str, name: str | None, nats: str | None, org: str | None) -> None:
    """Remove the secret NAME, or all of CONTEXT. Jobs that run keep what they have."""
    _call("secrets-rm", {"context": context, "name": name}, nats, org)
    say(f"removed {name} from context {context}" if name else f"removed context {context} with all its secrets")


@command.command("restrict")
@click.argument("context")
@click.option("--members", metavar="USER,…", help="Only these people use it, and enter jobs that have it.")
@click.option("--everybody", is_flag=True, help="Everybody of the org again.")
@click.option("--projects", metavar="PROJECT,…", help="Only these projects.")
@click.option("--any-project", is_flag=True, help="Every project of the org again.")
@click.option("--publisher/--no-publisher", default=None, help="Runs that the org's machine credential asks for, too.")
@system_options
@output_option
def restrict(
    context: str, members: str | None, everybody: bool, projects: str | None, any_project: bool,
    publisher: bool | None, nats: str | None, org: str | None, output: str,
) -> None:  # fmt: skip
    """Say who may use CONTEXT; what is not said stays. It takes the role admin.

    A context with members is closed: they alone set its secrets (and admins). A run with it is refused before it
    starts when its actor is no member, and only members enter its jobs by ssh.

    JSON: the context, as of `secrets ls`.
    """
    if (members is not None and everybody) or (projects is not None and any_project):
        raise Failure("--members and --everybody, or --projects and --any-project, exclude each other", code=USAGE)
    body: dict[str, Any] = {"context": context}
    if members is not None or everybody:
        body["members"] = None if everybody else _names(members or "")
    if projects is not None or any_project:
        body["projects"] = None if any_project else _names(projects or "")
    if publisher is not None:
        body["publisher"] = publisher
    if len(body) == 1:
        raise Failure("nothing to change", next="pitstop secrets restrict --help", code=USAGE)
    answer = _call("secrets-restrict", body, nats, org)
    if output == "json":
        out_json(answer)
    else:
        _print(answer)


@command.command("new-key")
def new_key() -> None:
    """Print a new line for the schedulers' key file (PITSTOP_SECRETS_KEY_FILE), and change nothing.

    \b
    To rotate the key that secrets are encrypted with:
      1. add the new line at the end of the file of every scheduler, and restart them one by one;
      2. move it to the top, and restart them again: all secrets are encrypted anew at the start;
      3. when `pitstop doctor` counts none under an old key in any org, remove the old line.
    """
    from pitstop_cli.local.credentials import secrets_key

    out(secrets_key())


def _call(verb: str, body: dict[str, Any], nats: str | None, org: str | None) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with connect(find(nats, org)) as client:
            return await client.call(verb, body)

    return run_async(ask())


def _value(of: str) -> str:
    if sys.stdin.isatty():
        value: str = click.prompt(f"value of {of}", hide_input=True, default="", show_default=False, err=True)
    else:
        try:
            value = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise Failure(
                "the value is not UTF-8 text", next="base64 it, and decode it in the step", code=USAGE
            ) from None
        if value.endswith("\n") and value.count("\n") == 1:
            value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise Failure("the value is empty; nothing was changed", code=USAGE)
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _print(context: dict[str, Any]) -> None:
    who = "everybody of the org" if context["members"] is None else ", ".join(context["members"]) or "nobody"
    where = "every project" if context["projects"] is None else ", ".join(context["projects"]) or "no project"
    machines = "; machine credentials too" if context["publisher"] else ""
    out(f"{styled(plain(context['context']), 'bold', sys.stdout)}  {who}; {where}{machines}")
    width = max((len(one["name"]) for one in context["secrets"]), default=0)
    for one in context["secrets"]:
        out(f"  {one['name']:<{width}}  set {one['time'][:16].replace('T', ' ')} UTC by {plain(one['by'])}")
    if not context["secrets"]:
        out(f"  no secret yet: pitstop secrets set {context['context']} NAME")
