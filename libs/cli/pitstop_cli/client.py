"""How a command finds the system, and calls its API: NATS requests on `api.<org>.<actor>.<verb>`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import click
import msgspec

from pitstop_cli import exits
from pitstop_cli.exits import Failure
from pitstop_cli.logins import NEXT, choose, logins
from pitstop_cli.paths import os_actor, state_dir

T = TypeVar("T")
DEFAULT_ORG: Final = "local"
_CALL_SECONDS: Final = 10.0
_FIRST_ATTEMPTS: Final = 3
_RENEW_SECONDS: Final = 120.0
_CODES: Final = {400: exits.USAGE, 401: exits.AUTH, 403: exits.AUTH, 404: exits.NOT_FOUND}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The system a command talks to. `dir` is its folder when `pitstop up` runs it on this machine."""

    nats: str
    org: str
    actor: str
    local: bool = False
    login: bool = False
    """A person's own login, which ends when it is revoked."""
    dir: Path | None = None
    ssh: dict[str, Any] = {}


class ApiFailure(Failure):
    """The service answered with an error. `errors` are the faults of a request, when it has any."""

    def __init__(self, number: int, text: str, errors: list[dict[str, Any]]) -> None:
        hint = "`pitstop ls` shows what there is" if number == 404 and "`pitstop" not in text else ""
        super().__init__(text, next=hint, code=_CODES.get(number, exits.SYSTEM))
        self.number = number
        self.errors = errors


def find(nats: str | None, org: str | None, environ: Mapping[str, str] = os.environ) -> Target:
    """--nats or PITSTOP_NATS_URL, with the login for it if there is one; else the system of PITSTOP_DIR; else the only
    login; else the system of the default folder. Raises Failure."""
    url = nats or environ.get("PITSTOP_NATS_URL", "")
    login = _login(url, org or environ.get("PITSTOP_ORG", ""), environ)
    if login is not None:
        return login
    folder = state_dir(environ)
    try:
        kept = _kept(folder)
    except Failure:
        if not url:  # whoever names a system needs nothing of one that `pitstop up` made here
            raise
        kept = {}
    org = org or environ.get("PITSTOP_ORG") or str(kept.get("org") or DEFAULT_ORG)
    actor = environ.get("PITSTOP_ACTOR") or str(kept.get("actor") or os_actor())
    _check_tokens(org, actor)
    if url and url != kept.get("nats"):
        return Target(nats=url, org=org, actor=actor)
    if not kept:
        raise Failure(
            f"you are not logged in{f' to {org}' if logins(environ) else ''}, and no system runs here: there is no "
            f"{folder}/client.json",
            next=f"{NEXT}\n  or start a system of your own: `pitstop up`   (PITSTOP_DIR names its folder)",
            code=exits.AUTH,
        )
    return Target(nats=kept["nats"], org=org, actor=actor, local=True, dir=folder, ssh=kept.get("ssh", {}))


def _login(url: str, org: str, environ: Mapping[str, str]) -> Target | None:
    if environ.get("PITSTOP_DIR") and not url:
        return None
    parts = urlsplit(url.split(",")[0])
    if parts.username and not parts.username.startswith("login-"):
        return None  # a credential of another kind
    found = choose(url, org, environ)
    if found is None:
        return None
    actor = environ.get("PITSTOP_ACTOR", "")
    if actor not in {"", found.actor}:
        raise Failure(f"you are logged in as {found.actor}, and PITSTOP_ACTOR says {actor}", code=exits.USAGE)
    return Target(nats=found.nats, org=found.org, actor=found.actor, login=True)


def _kept(folder: Path) -> dict[str, Any]:
    try:
        kept = json.loads((folder / "client.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {folder}/client.json: {error}", next="start `pitstop up` anew") from None
    return kept if isinstance(kept, dict) and "nats" in kept else {}


def _check_tokens(org: str, actor: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,38}", org):
        raise Failure(f"{org!r} is not an org: lower-case letters, digits and -", code=exits.USAGE)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", actor):
        raise Failure(f"{actor!r} is not a user name: letters, digits, - and _ (PITSTOP_ACTOR)", code=exits.USAGE)


class Client:
    """A connection of a command. Made by `connect`."""

    def __init__(self, target: Target, bus: Any) -> None:
        self.target = target
        self.bus = bus

    async def call(self, verb: str, body: Mapping[str, Any], timeout: float = _CALL_SECONDS) -> dict[str, Any]:
        """Ask the API. Asks again while nobody answers, so `body` must bear repetition. Raises Failure."""
        from pitstop_common.errors import Unavailable
        from pitstop_common.subjects import api

        subject = api(self.target.org, self.target.actor, verb)
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                msg = await self.bus.request(subject, json.dumps(body).encode(), timeout=max(0.1, min(left, 5.0)))
                return _answer(msg.headers or {}, msg.data)
            except Unavailable:
                if left <= 0:
                    raise Failure(
                        f"the scheduler does not answer ({verb}, {timeout:.0f} s)",
                        next="is it running? `pitstop doctor` looks; `pitstop up` starts everything",
                    ) from None
            await asyncio.sleep(0.2)


def _answer(headers: Mapping[str, str], data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data) if data else {}
    except ValueError:
        body = {}
    number = headers.get("Nats-Service-Error-Code")
    if number is None:
        return body if isinstance(body, dict) else {}
    told = headers.get("Nats-Service-Error") or "error"
    errors: list[dict[str, Any]] = []
    if isinstance(body, dict):
        told = str(body.get("message") or body.get("error") or told)
        errors = [fault for fault in body.get("errors", []) if isinstance(fault, dict)]
    elif data:
        told = data.decode(errors="replace")
    raise ApiFailure(int(number) if number.isdigit() else 500, told, errors)


@contextlib.asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Client]:
    """A Client for the length of a block. Raises Failure when there is no server or the credential is refused."""
    from pitstop_common.bus import Bus, safe_url
    from pitstop_common.errors import Unavailable

    try:
        bus = await Bus.connect(target.nats, "pitstop", attempts=_FIRST_ATTEMPTS)
    except Unavailable:
        if await _refuses(target.nats):
            raise Failure(
                f"NATS at {safe_url(target.nats)} refuses the credential, or no scheduler is there to say who it is",
                next=f"was it revoked, or is it over? {NEXT}", code=exits.AUTH,
            ) from None  # fmt: skip
        raise Failure(f"NATS does not answer at {safe_url(target.nats)}", next=_AGAIN) from None
    bus.nc.options["max_reconnect_attempts"] = -1  # a server that was there may come back
    renewing = asyncio.create_task(_renew(bus)) if target.login else None
    try:
        yield Client(target, bus)
    finally:
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        await bus.drain()


async def _renew(bus: Any) -> None:
    """What the server knows of a login ends after 5 minutes, and the connection with it: it is made anew before."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        await bus.renew()


async def _refuses(url: str) -> bool:
    """Is there a server that does not take the credential? (The library says the same for that as for none.)"""
    parts = urlsplit(url.split(",")[0])
    login = {"user": unquote(parts.username or ""), "pass": unquote(parts.password or ""), "verbose": False}
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
            with contextlib.closing(writer):
                await reader.readline()
                writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
                return b"authorization" in (await reader.readline()).lower()
    except (OSError, TimeoutError):
        return False


_AGAIN: Final = "is the system running? start it with `pitstop up`, or name another: --nats URL"


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """The body of a command. Errors of the libraries end as Failure."""
    import logging

    from pitstop_common.errors import Denied, NotFound, PitstopError

    logging.getLogger("nats").setLevel(logging.CRITICAL)
    try:
        return asyncio.run(work)
    except PitstopError as error:
        code = exits.NOT_FOUND if isinstance(error, NotFound) else exits.AUTH if isinstance(error, Denied) else 3
        raise Failure(str(error), code=code) from None


def system_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--nats and --org, for every verb that talks to the system."""
    command = click.option("--org", metavar="ORG", help="The org.  [default: PITSTOP_ORG, else local]")(command)
    return click.option("--nats", metavar="URL", help="The system.  [default: PITSTOP_NATS_URL, else `pitstop up`]")(
        command
    )


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """-o json."""
    return click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
    )(command)
