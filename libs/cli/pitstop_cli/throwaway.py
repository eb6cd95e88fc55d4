"""A key for one visit: made, registered for a short time, and removed when the visit is over."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pitstop_cli.client import Target, connect
from pitstop_cli.console import say
from pitstop_cli.exits import Failure


@contextlib.asynccontextmanager
async def identity_for(target: Target, given: str) -> AsyncIterator[str]:
    """The private key to offer, for the length of a block: the `given` one; empty (those that ssh finds itself) for
    whoever has a key registered; a throwaway one for a login without."""
    if given or not await needs_key(target):
        yield given
        return
    async with throwaway() as (file, public):
        from pitstop_common.limits import KEY_TTL

        fingerprint = str((await _call(target, "keys-add", {"key": public, "seconds": KEY_TTL}))["fingerprint"])
        say(f"you have no key: using one for this visit only ({fingerprint})", "dim")
        try:
            yield file
        finally:
            with contextlib.suppress(Failure):  # it is forgotten by itself in 10 minutes
                await asyncio.shield(_call(target, "keys-rm", {"fingerprint": fingerprint}))


async def needs_key(target: Target) -> bool:
    """Is this a person's login, who has no key."""
    if not target.login:
        return False
    known = await _call(target, "keys-ls", {})
    return not known.get("keys") and not any(link["keys"] for link in known.get("links", ()))


@contextlib.asynccontextmanager
async def throwaway() -> AsyncIterator[tuple[str, str]]:
    """A private key's file, and the public half, for the length of a block. Raises Failure."""
    if shutil.which("ssh-keygen") is None:
        raise Failure("there is no ssh-keygen here", next="apt install openssh-client")
    with tempfile.TemporaryDirectory(prefix="pitstop-key-") as folder:
        file = Path(folder) / "id"
        made = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pitstop-throwaway", "-f", str(file),
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await made.wait():
            raise Failure("ssh-keygen could not make a key")
        yield str(file), file.with_suffix(".pub").read_text().strip()


async def _call(target: Target, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(target) as client:
        return await client.call(verb, body)
