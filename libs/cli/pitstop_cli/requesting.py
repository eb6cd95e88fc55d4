"""`pitstop run` up to the answer of the scheduler: what to run, where, and whether that is possible."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_cli.attend import Manner, attend
from pitstop_cli.checkout import Checkout, read_checkout, workflow_file
from pitstop_cli.client import DEFAULT_ORG, ApiFailure, Client, Target, connect, find
from pitstop_cli.console import out, out_json, say
from pitstop_cli.exits import OK, USAGE, Failure
from pitstop_cli.patch import Patch, read_patch
from pitstop_cli.request import Plan, SshOptions, faults_as_lines, plan
from pitstop_cli.terminal import private_key
from pitstop_cli.throwaway import needs_key, throwaway
from pitstop_common.limits import MAX_WORKFLOW_BYTES
from pitstop_common.messages import Fault

_NAMED: Final = 5
"""Files of a patch that are listed by name."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `pitstop run`. `keys`: the files behind `ssh.keys`."""

    workflow: Path | None
    jobs: tuple[str, ...]
    project: str
    priority: int
    secrets: tuple[str, ...]
    retry: str
    committed: bool
    wait: bool
    local: bool
    json: bool
    nats: str | None
    org: str | None
    ssh: SshOptions
    keys: tuple[str, ...]


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run: the checkout, what is not committed of it, and the workflow file with its text."""

    checkout: Checkout
    file: Path
    text: str
    patch: Patch = Patch()


async def request_run(wish: Wish) -> int:
    """Request the run and attend it. Returns the exit code; raises Failure."""
    checkout = read_checkout(Path.cwd())
    file = workflow_file(wish.workflow, checkout.root)
    here = Here(checkout=checkout, file=file, text=_read(file))
    prepare(wish, here, org=wish.org or DEFAULT_ORG, local=True)  # usage errors before all else
    if checkout.dirty and not wish.committed:
        here = msgspec.structs.replace(here, patch=read_patch(checkout.root))
    if wish.local:
        from pitstop_cli.local.once import system_for_one_run

        async with system_for_one_run(wish.org or DEFAULT_ORG, wish.ssh) as (target, ssh, identity):
            there = msgspec.structs.replace(wish, ssh=ssh)
            return await _request(there, here, target, identity)
    target = find(wish.nats, wish.org)
    if wish.ssh.asked and not wish.ssh.keys and await needs_key(target):
        async with throwaway() as (private, public):  # for the length of this command; later: pitstop ssh
            ssh = msgspec.structs.replace(wish.ssh, keys=(public,))
            there = msgspec.structs.replace(wish, ssh=ssh)
            return await _request(there, here, target, private)
    return await _request(wish, here, target, identity_of(wish.keys))


def prepare(wish: Wish, here: Here, *, org: str, local: bool) -> Plan:
    """The plan, with everything checked that can be checked here. Raises Failure (exit 2)."""
    file, root = here.file, here.checkout.root
    return plan(
        org=org, request=f"cli-{secrets.token_hex(8)}", project=wish.project or here.checkout.name, workflow=here.text,
        name=str(file.relative_to(root)) if file.is_relative_to(root) else str(file), jobs=wish.jobs,
        source=_source(here.checkout, here.patch, local=local), ssh=wish.ssh, priority=wish.priority, retry=wish.retry,
        secrets=wish.secrets,
    )  # fmt: skip


async def _request(wish: Wish, here: Here, target: Target, identity: str) -> int:
    made = prepare(wish, here, org=target.org, local=target.local)
    async with connect(target) as client:
        answer = await _submit(client, made, here.file)
        _announce(wish, here, made, answer, target)
        if not wish.wait:
            return OK
        manner = Manner(ssh=wish.ssh, json=wish.json, identity=identity, leave=not wish.local)
        return await attend(client, made, answer["jobs"], manner)


async def _submit(client: Client, made: Plan, file: Path) -> dict[str, Any]:
    try:
        return await client.call("run", made.body)
    except ApiFailure as failure:
        faults = [msgspec.convert(fault, Fault) for fault in failure.errors]
        if not faults:
            raise
        raise Failure(
            f"the run was refused, nothing was started:\n{faults_as_lines(faults, str(file))}",
            next=_hint(failure, made), code=failure.code,
        ) from None  # fmt: skip


def _hint(failure: ApiFailure, made: Plan) -> str:
    told = " ".join(str(fault.get("message", "")) for fault in failure.errors)
    if "ssh" in made.body and "key" in told:
        return "register your key: pitstop keys add ~/.ssh/id_ed25519.pub   (or give one for this run: --ssh-key FILE)"
    return ""


def _announce(wish: Wish, here: Here, made: Plan, answer: dict[str, Any], target: Target) -> None:
    checkout = here.checkout
    if wish.json:
        out_json({"event": "accepted", "run": made.run, "org": target.org, "project": made.body["project"],
                  "jobs": answer["jobs"], "queue_position": answer.get("queue_position"),
                  "duplicate": answer.get("duplicate", False)})  # fmt: skip
    say(f"repo     {checkout.origin or checkout.root} at {checkout.sha[:10]} ({checkout.ref or 'detached'})")
    if checkout.dirty and wish.committed:
        say(f"         {checkout.dirty} uncommitted file(s) are not part of the run, as asked", "yellow")
    _announce_patch(here.patch)
    if not target.local and not checkout.pushed:
        say("         no remote branch has this commit, as far as this clone knows: push it first", "yellow")
    say(f"jobs     {', '.join(f'{key} ({job})' for key, job in answer['jobs'].items())}")
    if made.pause:
        say(f"session  {made.pause}")
    say(f"org      {target.org}, as {target.actor}")
    say(f"run      {made.run}")
    if not wish.wait and not wish.json:
        out(made.run)


def _announce_patch(patch: Patch) -> None:
    if patch.files:
        count, size = len(patch.files), patch.size / 1024
        names = ", ".join(patch.files[:_NAMED]) + (f" and {count - _NAMED} more" if count > _NAMED else "")
        say(f"         with {count} uncommitted file(s), {size:.1f} KiB of patch: {names}", "yellow")
    if patch.left_out:
        say(f"         not part of the run: the changes in {', '.join(patch.left_out[:_NAMED])} (submodules, or "
            "repositories of their own); commit and push them there", "yellow")  # fmt: skip


def _source(checkout: Checkout, patch: Patch, *, local: bool) -> dict[str, str]:
    if not local and not checkout.origin:
        raise Failure(
            f"{checkout.root} has no remote `origin`, and the system is not on this machine: it could not get the code",
            next="git remote add origin URL && git push, or run it here: pitstop run --local",
            code=USAGE,
        )
    source = {"git": str(checkout.root) if local else checkout.origin, "ref": checkout.ref, "sha": checkout.sha}
    return source | ({"patch": patch.text, "patch_encoding": "zlib"} if patch.text else {})


def _read(file: Path) -> str:
    if file.stat().st_size > MAX_WORKFLOW_BYTES:
        raise Failure(f"{file} is larger than {MAX_WORKFLOW_BYTES // 1024} KiB", code=USAGE)
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {file}: {error}", code=USAGE) from None


def identity_of(files: tuple[str, ...]) -> str:
    """The private key beside the first of these public ones that has one; empty: none."""
    for file in files:
        if file != "-" and (found := private_key(Path(file).expanduser())):
            return found
    return ""
