"""`pitstop rerun` up to the answer of the scheduler."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from pitstop_cli.attend import Manner, attend
from pitstop_cli.client import ApiFailure, Client, Target, connect, find
from pitstop_cli.console import out, out_json, plain, say
from pitstop_cli.exits import OK, USAGE, Failure
from pitstop_cli.request import Plan, SshOptions, check_options, one_job_only, ssh_block
from pitstop_cli.requesting import identity_of
from pitstop_cli.throwaway import needs_key, throwaway
from pitstop_common.ids import run_of_job


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `pitstop rerun`. `keys`: the files behind `ssh.keys`."""

    run: str
    failed: bool
    jobs: tuple[str, ...]
    ssh: SshOptions
    no_ssh: bool
    keys: tuple[str, ...]
    wait: bool
    json: bool
    nats: str | None
    org: str | None


async def request_rerun(wish: Wish) -> int:
    """Request the rerun and attend it. Returns the exit code; raises Failure."""
    check_options(wish.ssh)
    target = find(wish.nats, wish.org)
    if wish.ssh.asked and not wish.ssh.keys and await needs_key(target):
        async with throwaway() as (private, public):  # for the length of this command; later: pitstop ssh
            there = msgspec.structs.replace(wish, ssh=msgspec.structs.replace(wish.ssh, keys=(public,)))
            return await _rerun(there, target, private)
    return await _rerun(wish, target, identity_of(wish.keys))


async def _rerun(wish: Wish, target: Target, identity: str) -> int:
    async with connect(target) as client:
        if wish.ssh.one_job:
            first = await client.call("status", {"run": run_of_job(wish.run)})
            one_job_only(wish.ssh, _keys(first, wish))
        answer = await _submit(client, body_of(wish, f"cli-{secrets.token_hex(8)}"))
        _announce(wish, answer, client)
        if not wish.wait:
            return OK
        made = Plan(run=answer["run"], body={}, jobs=tuple(answer["jobs"]), pause="")
        manner = Manner(ssh=wish.ssh, json=wish.json, identity=identity)
        return await attend(client, made, answer["jobs"], manner)


def body_of(wish: Wish, request: str) -> dict[str, Any]:
    """The body of the API's `rerun`."""
    body: dict[str, Any] = {"run": wish.run, "id": request, "failed": wish.failed, "jobs": list(wish.jobs)}
    named = wish.ssh.before_step or ""
    step = wish.ssh.after_step or (int(named) if named.isdecimal() else named or None)
    block = ssh_block(wish.ssh, step)
    return body | ({"ssh": block} if block or wish.no_ssh else {})


def _keys(first: dict[str, Any], wish: Wish) -> list[str]:
    """The jobs that are to be done again, as far as can be seen from here."""
    named = {*wish.jobs, *([wish.run] if "-" in wish.run else [])}
    jobs = [entry["job"] for entry in first["jobs"]]
    wanted = [job for job in jobs if not named or named & {job["key"], job["job"]}]
    return [job["key"] for job in wanted if not wish.failed or job["result"] != "success"]


async def _submit(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return await client.call("rerun", body)
    except ApiFailure as failure:
        told = "\n".join(f"  {fault['pointer'] or '/'} {fault['message']}" for fault in failure.errors)
        if not told:
            raise
        raise Failure(f"the rerun was refused, nothing was started:\n{told}", code=failure.code or USAGE) from None


def _announce(wish: Wish, answer: dict[str, Any], client: Client) -> None:
    target = client.target
    if wish.json:
        out_json({"event": "accepted", "run": answer["run"], "org": target.org, "jobs": answer["jobs"],
                  "queue_position": answer["queue_position"], "duplicate": answer["duplicate"],
                  "rerun_of": answer["rerun_of"], "notes": answer["notes"]})  # fmt: skip
    say(f"rerun of {answer['rerun_of']}")
    say(f"jobs     {', '.join(f'{plain(key)} ({job})' for key, job in answer['jobs'].items())}")
    for note in answer["notes"]:
        say(f"note     {plain(note)}", "yellow")
    say(f"org      {target.org}, as {target.actor}")
    say(f"run      {answer['run']}")
    if not wish.wait and not wish.json:
        out(answer["run"])
