"""Lets people in to NATS: the server asks about everybody who is not one of its own users ("auth callout"), and the
answer is a signed list of what that person may publish and subscribe to."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

from nats.aio.msg import Msg

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import ConfigError, Denied, Unavailable
from pitstop_common.nkeys import AccountKey, claims_of
from pitstop_common.permissions import person
from pitstop_scheduler.passes import LOGIN, Pass, Passes

log = logging.getLogger(__name__)

RENEWED: Final = 300.0
"""Seconds until a living connection of a person is asked about again: so long may a revoked one last."""
_EXCHANGE: Final = 60.0
_QUEUE: Final = "auth"
_VERSION: Final = 2


class Callout:
    """Shared by all schedulers (one queue group). `account`: where the server has its users."""

    def __init__(self, bus: Bus, passes: Passes, key: AccountKey) -> None:
        self._bus, self._passes, self._key = bus, passes, key
        self._account = ""

    async def serve(self) -> None:
        """Answer from now on. Raises Unavailable."""
        told = json.loads((await self._bus.request(subjects.USER_INFO)).data)
        self._account = str(told["data"]["account"])
        await self._bus.subscribe(subjects.USER_AUTH, self._asked, queue=_QUEUE)

    async def _asked(self, msg: Msg) -> None:
        try:
            request = claims_of(msg.data)
            said: dict[str, Any] = request["nats"]
            nkey, server = str(said["user_nkey"]), str(said["server_id"]["id"])
            options: dict[str, Any] = said.get("connect_opts") or {}
            now = float(request["iat"])
        except (ValueError, LookupError, TypeError) as error:
            log.warning("an authorization request cannot be read: %s", error)
            return
        answer: dict[str, Any] = {"type": "authorization_response", "version": _VERSION}
        try:
            held = await self._passes.check(str(options.get("user") or ""), str(options.get("pass") or ""), now)
            answer["jwt"] = self._key.sign(user_claims(held, nkey, self._account, now))
        except (Denied, Unavailable) as error:
            log.info("a login is refused: %s", error)
            answer["error"] = str(error)
        await msg.respond(self._key.sign({"aud": server, "sub": nkey, "iat": int(now), "nats": answer}).encode())


def user_claims(held: Pass, nkey: str, account: str, now: float) -> dict[str, Any]:
    """What the server is told of a person. Pure."""
    rights = person(held.org, held.user, held.id, held.role, login=held.kind == LOGIN)
    limit = RENEWED if held.kind == LOGIN else _EXCHANGE
    return {
        "aud": account, "sub": nkey, "name": f"{held.org}.{held.user}", "iat": int(now),
        "exp": int(min(now + limit, held.expires)),
        "nats": {
            "type": "user", "version": _VERSION, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": list(rights.publish)}, "sub": {"allow": list(rights.subscribe)},
        },
    }  # fmt: skip


def key_of(path: str) -> AccountKey:
    """The key in a file of its own. Raises ConfigError."""
    file = Path(path)
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError(f"PITSTOP_CALLOUT_KEY: {path} can be read by others; chmod 600 {path}")
        return AccountKey.from_seed(file.read_text())
    except OSError as error:
        raise ConfigError(f"PITSTOP_CALLOUT_KEY: cannot read {path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"PITSTOP_CALLOUT_KEY: {path}: {error}; make one: pitstop token key {path}") from None
