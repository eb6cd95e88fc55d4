"""One client from its login to its end: proves who it is, then passes its messages on, unread."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

import asyncssh

from pitstop_common.limits import DROP_ABOVE
from pitstop_common.link import Kind
from pitstop_relay import login
from pitstop_relay.link import Link
from pitstop_relay.login import Login, Refusal
from pitstop_relay.transport import Transport

log = logging.getLogger(__name__)

_DATA: Final = Kind.DATA
_CHANNEL_DATA: Final = frozenset({94, 95})
_REASONS: Final = frozenset({
    "exit", "disconnect", "expired", "stopped", "link_lost", "protocol", "bad_grant", "ended", "no_ssh", "elsewhere",
    "not_ready", "unavailable", "internal",
})  # fmt: skip
"""Why a host may say that it ends a session: each is a label of a metric."""
_MAX_TEXT: Final = 1000
"""Of what a host says to a person, characters."""


class House(login.House, Protocol):
    """What all guests of a relay share."""

    def entered(self, guest: Guest) -> None:
        """A guest has logged in."""

    def gone(self, guest: Guest, denials: list[Refusal]) -> None:
        """A guest has left; `denials` are those of a connection that never got in."""


class Guest:
    """Made for one transport; implements its Guest protocol and the link's Rider."""

    def __init__(self, house: House, transport: Transport) -> None:
        self._house = house
        self._passed = house.metrics.passed
        self._transport = transport
        self._began = time.monotonic()
        self._login = Login(house, transport)
        self._link: Link | None = None
        self._number = 0
        self._shown = False
        self._reason = ""
        self.inside = False

    # -- logging in ------------------------------------------------------------------------------------------------

    async def signed(self, message: bytes, signature: bytes, key: bytes) -> bool:
        """As the login says."""
        return await self._login.signed(message, signature, key)

    async def password(self, job: str, password: str) -> bool:
        """As the login says."""
        return await self._login.password(job, password)

    @property
    def takes_passwords(self) -> bool:
        """As the login says."""
        return self._login.takes_passwords

    def entered(self) -> None:
        """Success was sent: open the connection to the sandbox."""
        self._login.count("ok")
        self.inside = True
        self._house.entered(self)
        if self._login.admitted is None:  # at the desk
            return
        link, login = self._login.admitted
        if not link.alive:
            self.closed("link_lost", "pitstop: the sandbox host went away. Connect again in a moment.")
            return
        self._link = link
        self._number = link.open(self, login)

    # -- passing on ------------------------------------------------------------------------------------------------

    def up(self, message: bytes) -> None:
        """From the client."""
        if self._link is not None:
            self._link.send(_DATA, self._number, message)
            self._passed.up += len(message)

    def down(self, message: bytes) -> None:
        """From the sandbox."""
        self._transport.down(message)
        if not self._shown and message[0] in _CHANNEL_DATA:
            self._shown = True
            self._house.metrics.setup.observe(time.monotonic() - self._began)
        self._passed.down += len(message)
        if self._transport.crowded and self._transport.waiting > DROP_ABOVE:
            self._drop()

    def full(self) -> None:
        """The client reads slowly: its sandbox should send nothing for now."""
        if self._link is not None:
            self._link.send(Kind.PAUSE, self._number)

    def free(self) -> None:
        """It has caught up."""
        if self._link is not None:
            self._link.send(Kind.RESUME, self._number)

    def hold(self) -> None:
        """The link is full."""
        self._transport.hold()

    def release(self) -> None:
        """The link has room."""
        self._transport.release()

    # -- the end ---------------------------------------------------------------------------------------------------

    def closed(self, reason: str, text: str) -> None:
        """The sandbox ended it, or the link did: the person is told."""
        self._link = None
        self._reason = self._reason or (reason if reason in _REASONS else "other")
        self._transport.leave(text[:_MAX_TEXT] or "pitstop: the session is over.")

    def dismiss(self, reason: str, text: str) -> None:
        """This relay ends it."""
        link, self._link = self._link, None
        self._reason = self._reason or reason
        if link is not None:
            link.leave(self._number, reason)
        self._transport.leave(text)

    def gone(self, error: Exception | None) -> None:
        """The client is no more."""
        link, self._link = self._link, None
        self._reason = self._reason or ("client_lost" if isinstance(error, asyncssh.ConnectionLost) else "client_exit")
        if link is not None:
            link.leave(self._number, self._reason)
        if self.inside:
            self._house.metrics.closed.labels(self._reason).inc()
        self._house.gone(self, [] if self.inside else self._login.denials)

    def _drop(self) -> None:
        log.warning("client %s reads too slowly: dropped", self._transport.client)
        link, self._link = self._link, None
        self._reason = "too_slow"
        if link is not None:
            link.leave(self._number, "too_slow")
        asyncio.get_running_loop().call_soon(self._transport.abort)
