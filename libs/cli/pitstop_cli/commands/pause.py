"""`pitstop pause`: a job that runs is held when its step in progress ends, and one is taken into it."""

from __future__ import annotations

from typing import Any

import click

from pitstop_cli.client import Client, Target, connect, find, output_option, run_async, system_options
from pitstop_cli.console import interactive, out, out_json, plain, say
from pitstop_cli.exits import NOT_FOUND, OK, Failure


@click.command("pause")
@click.argument("run", metavar="RUN|JOB")
@click.option("--job", default="", metavar="JOB", help="Which job of the run (its key or id).")
@click.option("--off", is_flag=True, help="It is not to pause any more.")
@click.option("--no-wait", is_flag=True, help="Only ask for it.")
@click.option("-i", "--identity", default="", metavar="FILE", help="Private key, as for ssh.")
@system_options
@output_option
def command(
    run: str, job: str, off: bool, no_wait: bool, identity: str, nats: str | None, org: str | None, output: str
) -> int:
    """Pause a running job when its step in progress ends, and step into it, also if its run asked for no session.

    The step is not cut short. At the pause the terminal opens by itself; off a terminal, stdout is one line: the ssh
    command. The job then waits as after --ssh-after-step: if nobody enters, it ends as its run says.

    \b
    JSON, one object a line, each with "event":
      pausing  {"job", "run", "pausing", "by", "step", "name"}; step 0: its sandbox is being made
      waiting  {"job", "key", "status", "ssh": {"host", "port", "user", "command", "known_hosts", …}, "deadline"}
    """
    wish = {"run": run, "job": job, "off": off}
    return run_async(_pause(find(nats, org), wish, identity, wait=not (no_wait or off), as_json=output == "json"))


async def _pause(target: Target, wish: dict[str, Any], identity: str, *, wait: bool, as_json: bool) -> int:
    from pitstop_cli.terminal import command_line, enter, ssh_argv
    from pitstop_cli.throwaway import identity_for
    from pitstop_cli.watch import waiting_event

    opens = wait and not as_json and interactive()
    async with connect(target) as client:
        if opens:
            async with identity_for(target, identity):  # whoever could not enter is refused
                answer = await client.call("pause", wish)
        else:
            answer = await client.call("pause", wish)
        said = _say(answer, "", as_json=as_json)
        if not wait:
            return OK
        entry, address = await _until_paused(client, answer, said, as_json=as_json)
    if as_json:
        out_json(waiting_event(entry, address))
    elif not opens:
        out(command_line(ssh_argv(address, identity=identity)))
    else:
        async with identity_for(target, identity) as key:
            argv = ssh_argv(address, identity=key)
            say(f"connecting: {command_line(argv)}", "dim")
            code = await enter(argv)
            say(f"what it says from here on: pitstop logs -f {answer['job']}", "dim")
            return code
    return OK


async def _until_paused(
    client: Client, answer: dict[str, Any], said: str, *, as_json: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job and its address, once it waits. Raises Failure when it is not going to."""
    from pitstop_cli.watch import job_of, watching

    async with watching(client, answer["job"]) as watch:
        async for status in watch.changes():
            entry = job_of(status, answer["job"])
            assert entry is not None
            address = _address_at_pause(entry)
            if address is not None:
                return entry, address
            if step := entry["job"].get("pausing_step"):
                said = _say({**answer, "step": step}, said, as_json=as_json)
    raise AssertionError("a watch never ends by itself")


def _say(answer: dict[str, Any], said: str, *, as_json: bool) -> str:
    """What will happen, each time that more is known of it."""
    step, names = int(answer["step"]), answer["steps"]
    name = str(names[step - 1]) if 0 < step <= len(names) else ""
    if not answer["pausing"]:
        text = f"{answer['job']} does not pause"
    elif step:
        text = f'{answer["job"]} pauses when step {step} "{plain(name)}" ends'
    else:
        text = f"{answer['job']} pauses when its step in progress ends"
    if text != said:
        if as_json:
            fields = {key: answer[key] for key in ("job", "run", "pausing", "by")}
            out_json({"event": "pausing", **fields, "step": step, "name": name})
        else:
            say(text)
    return text


def _address_at_pause(entry: dict[str, Any]) -> dict[str, Any] | None:
    """How to enter the job; None: it does not wait yet. Raises Failure when it is not going to."""
    from pitstop_cli import words
    from pitstop_cli.watch import address_of

    job = entry["job"]
    if job["status"] == "paused":
        return address_of(entry)
    if job["status"] in {"finished", "stopping"}:
        raise Failure(
            f"job {job['job']} did not come to its pause: {words.state(entry)}",
            next=words.over(job["job"]),
            code=NOT_FOUND,
        )
    if not job.get("pausing"):
        raise Failure(
            f"job {job['job']} goes on: somebody took the pause back, or has resumed it already",
            next=f"who: pitstop audit {job['job']}",
            code=NOT_FOUND,
        )
    return None
