"""One client from its login to its end: proves who it is, then passes its messages on, unread."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Protocol

import asyncssh

from pitstop_common import telemetry, userauth
from pitstop_common.errors import PitstopError
from pitstop_common.limits import DROP_ABOVE, JOB
from pitstop_common.link import Kind, Open
from pitstop_common.messages import AccessReply
from pitstop_relay import decide
from pitstop_relay.desk import Desk
from pitstop_relay.link import Link, Links
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.model import Admit, Attempt, Denial
from pitstop_relay.ports import AccessPort
from pitstop_relay.transport import Transport, verifies

log = logging.getLogger(__name__)

_DATA: Final = Kind.DATA
_CHANNEL_DATA: Final = frozenset({94, 95})
_REPEATED: Final = "key_unknown"
_REASONS: Final = frozenset({
    "exit", "disconnect", "expired", "stopped", "link_lost", "protocol", "bad_grant", "ended", "no_ssh", "elsewhere",
    "not_ready", "unavailable", "internal",
})  # fmt: skip
"""Why a host may say that it ends a session: each is a label of a metric."""
_MAX_TEXT: Final = 1000
"""Of what a host says to a person, characters."""


class House(Protocol):
    """What all guests of a relay share."""

    links: Links
    metrics: RelayMetrics
    draining: bool

    @property
    def access(self) -> AccessPort:
        """Whom to ask."""

    def entered(self, guest: Guest) -> None:
        """A guest has logged in."""

    def gone(self, guest: Guest, denials: list[Refusal]) -> None:
        """A guest has left; `denials` are those of a connection that never got in."""


class Refusal(Denial, frozen=True, kw_only=True):
    """A denial, with what is published of it."""

    attempt: Attempt
    access: AccessReply | None
    client: str


class Guest:
    """Made for one transport; implements its Guest protocol and the link's Rider."""

    def __init__(self, house: House, transport: Transport) -> None:
        self._house = house
        self._passed = house.metrics.passed
        self._transport = transport
        self._began = time.monotonic()
        self._denials: list[Refusal] = []
        self._admitted: tuple[Link, Open, Admit] | None = None
        self._link: Link | None = None
        self._number = 0
        self._shown = False
        self._reason = ""
        self.inside = False

    # -- logging in ------------------------------------------------------------------------------------------------

    async def signed(self, message: bytes, signature: bytes, key: bytes) -> bool:
        """Whether this login gets in. The reason for a refusal goes to the client as a banner."""
        try:
            login = userauth.parse(message)
            if login.algorithm == userauth.SHA1:
                return self._say(decide.sha1(), "sha1")
            sound = (
                login.key == key
                and userauth.fits(login.algorithm, key)
                and userauth.signature_algorithm(signature) == login.algorithm
            )
        except userauth.Malformed:
            sound = False
        if not sound or not verifies(self._transport.session_id, message, signature, key):
            self._count("bad_signature")
            return False
        attempt = Attempt(job=login.user, key=userauth.authorized(key), fingerprint=userauth.fingerprint(key))
        if not JOB.match(attempt.job) and not self._house.draining:
            return await self._at_desk(attempt)
        verdict, access = await self._judge(attempt)
        if isinstance(verdict, Denial):
            return self._deny(attempt, verdict, access)
        return await self._admit(attempt, verdict, access, Open(
            job=login.user, session_id=self._transport.session_id, message=message, signature=signature, key=key,
            client=self._transport.client, client_version=self._transport.version, trace=telemetry.new_trace(),
        ))  # fmt: skip

    async def _at_desk(self, attempt: Attempt) -> bool:
        """Who names no job is answered by the relay itself, if the key is somebody's."""
        try:
            known = await self._house.access.who(attempt.fingerprint)
        except PitstopError as error:
            log.warning("no answer to whose a key is: %s", error)
            return self._deny(attempt, decide.scheduler_unreachable(), None)
        if not known.people:
            return self._deny(attempt, decide.no_job(attempt), None)
        self._transport.serve(lambda: Desk(known, attempt.fingerprint))
        return True

    async def _judge(self, attempt: Attempt) -> tuple[Admit | Denial, AccessReply | None]:
        if self._house.draining:
            return decide.draining(), None
        try:
            access = await self._house.access.access(attempt.job, attempt.fingerprint)
        except PitstopError as error:
            log.warning("no answer to who may enter %s: %s", attempt.job, error)
            return decide.scheduler_unreachable(), None
        return decide.decide(attempt, access), access

    async def _admit(self, attempt: Attempt, admit: Admit, access: AccessReply | None, login: Open) -> bool:
        try:
            link = await self._house.links.to(admit.host)
        except PitstopError as error:
            log.warning("no link for job %s: %s", attempt.job, error)
            return self._deny(attempt, decide.host_unreachable(attempt.job, admit.host), access)
        self._admitted = (link, login, admit)
        if self._denials:
            self._banner(decide.found_at_last(attempt, admit))
        return True

    def _deny(self, attempt: Attempt, denial: Denial, access: AccessReply | None) -> bool:
        again = any(earlier.code == _REPEATED for earlier in self._denials)
        self._denials.append(
            Refusal(code=denial.code, text=denial.text, attempt=attempt, access=access, client=self._transport.client)
        )
        log.info("denied job=%r key=%s reason=%s client=%s", attempt.job, attempt.fingerprint, denial.code,
                 self._transport.client)  # fmt: skip
        shorter = Denial(code=denial.code, text=decide.again(attempt))
        return self._say(shorter if again and denial.code == _REPEATED else denial, denial.code)

    def _say(self, denial: Denial, result: str) -> bool:
        self._count(result)
        self._banner(denial.text)
        return False

    def _banner(self, text: str) -> None:
        try:
            self._transport.send_auth_banner(text)
        except OSError:
            log.debug("too late for a banner")

    def _count(self, result: str) -> None:
        self._house.metrics.auth.labels("publickey", result).inc()

    def entered(self) -> None:
        """Success was sent: open the connection to the sandbox."""
        self._count("ok")
        self.inside = True
        self._house.entered(self)
        if self._admitted is None:  # at the desk
            return
        link, login, _admit = self._admitted
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
        self._house.gone(self, [] if self.inside else self._denials)

    def _drop(self) -> None:
        log.warning("client %s reads too slowly: dropped", self._transport.client)
        link, self._link = self._link, None
        self._reason = "too_slow"
        if link is not None:
            link.leave(self._number, "too_slow")
        asyncio.get_running_loop().call_soon(self._transport.abort)
