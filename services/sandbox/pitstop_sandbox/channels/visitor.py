"""One login on a link: proved, then served, then closed. Nothing that it sends harms another."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from asyncssh.packet import Boolean, Byte, String

from pitstop_common.credentials import token_id
from pitstop_common.errors import PitstopError
from pitstop_common.link import Close, Kind, Open
from pitstop_common.messages import AccessReply
from pitstop_sandbox.channels.forwards import Forwards
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.channels.seam import Connection
from pitstop_sandbox.channels.seen import Seen
from pitstop_sandbox.channels.session import ChannelSession
from pitstop_sandbox.grant import Refused, check
from pitstop_sandbox.ports import Session, SessionHost

log = logging.getLogger(__name__)

MAX_EARLY: Final = 256 * 1024
"""What a client may send before it is let in, bytes."""
LEAVE_WITHIN: Final = 15.0
"""For a connection's processes to end when it is over, seconds."""

ALIVE_WITHIN: Final = 3.0
"""For a client to answer, before its shell is taken over, seconds."""

_STILL_THERE: Final = Byte(80) + String("keepalive@openssh.com") + Boolean(True)
_ANSWERS: Final = frozenset({81, 82})
"""REQUEST_SUCCESS and REQUEST_FAILURE (RFC 4254 section 4)."""
_ELSEWHERE: Final = "pitstop: you came in again from elsewhere; your shell goes on there."
_INTERNAL: Final = "pitstop: internal error of the sandbox host; connect again in a moment."


class House(Protocol):
    """What a visitor needs of the host it comes to."""

    host: str
    seen: Seen

    async def access(self, job: str, *, token: str = "") -> AccessReply:
        """Who may enter a job, and what is known of a token. Raises PitstopError."""

    def find(self, job: str) -> SessionHost | None:
        """The job, when it runs here."""


class Visitor:
    """A connection of the link. `send` gives frames of one kind to the link: their payloads."""

    def __init__(self, house: House, login: Open, send: Callable[..., None]) -> None:
        self.job = login.job
        self._house = house
        self._login = login
        self._send = send
        self._early: list[bytes] = []
        self._early_size = 0
        self._connection: Connection | None = None
        self._sessions: list[ChannelSession] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._holds: set[str] = set()
        self._forwards: Forwards | None = None
        self._heard = asyncio.Event()
        self._asked = 0
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    # -- from the link ---------------------------------------------------------------------------------------------

    def data(self, message: bytes) -> None:
        """One SSH message of the client."""
        if self._over.done():
            return
        self._heard.set()
        if self._asked and message[0] in _ANSWERS:
            self._asked -= 1
            return
        if self._connection is not None:
            self._connection.feed(message)
            return
        self._early.append(message)
        self._early_size += len(message)
        if self._early_size > MAX_EARLY:
            self._broken("too much was sent before the session began")

    def hold(self, why: str) -> None:
        """Send the client nothing more from its processes for now."""
        self._holds.add(why)
        for each in self._flows():
            each.hold(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        self._holds.discard(why)
        for each in self._flows():
            each.release(why)

    def _flows(self) -> list[ChannelSession | Forwards]:
        return [*self._sessions, *([self._forwards] if self._forwards else [])]

    def notice(self, text: str) -> bool:
        """Show a line in each of its terminals; whether there is one."""
        shown = [session.notice(text) for session in self._sessions]
        return any(shown)

    def warn(self, text: str) -> None:
        """Show a warning in each of its sessions."""
        for session in self._sessions:
            session.warn(text)

    async def alive(self) -> bool:
        """Says its client anything within ALIVE_WITHIN, when it is asked."""
        if not self._over.done():
            self._heard.clear()
            self._asked += 1
            self._to_client(_STILL_THERE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_WITHIN):
                    await self._heard.wait()
        return self._heard.is_set() and not self._over.done()

    def drop(self) -> None:
        """Its shell is taken over by a newer connection of its person."""
        self.close("elsewhere", _ELSEWHERE)

    def left(self) -> None:
        """The client, or the way to it, is gone: after its work (exit), or in the middle of it (disconnect)."""
        self._finish("disconnect" if any(each.working for each in self._flows()) else "exit")

    def close(self, reason: str, text: str, after: float = 0) -> None:
        """End it from here: the person reads `text`, when `after` seconds have passed for what was sent before."""
        if not self._over.done():
            self._tell(reason, text, after)
            self._finish(reason)

    # -- its life --------------------------------------------------------------------------------------------------

    async def visit(self) -> None:
        """From the proof to the end. Returns when nothing of it runs any more."""
        try:
            person, job, rules = await self._enter()
        except _Turned as refusal:
            self.close(refusal.reason, refusal.text)
            return
        except Exception:
            log.exception("a login into %r broke", self.job)
            self.close("internal", _INTERNAL)
            return
        try:
            if not self._over.done():
                self._serve(person, job, rules)
            await self._over
        except Exception:
            log.exception("session %s broke", person.id)
            self.close("internal", _INTERNAL)
        finally:
            await self._leave()
            reason = self._over.result() if self._over.done() else "stopped"
            await job.closed(person, "disconnect" if reason == "internal" else reason)
        log.info("left job=%s session=%s reason=%s", self.job, person.id, reason)

    async def _enter(self) -> tuple[Session, SessionHost, Rules]:
        try:
            access = await self._house.access(self.job, token=token_id(self._login.token))
        except PitstopError as error:
            raise _Turned(
                "unavailable", f"the scheduler does not answer ({error}); connect again in a moment"
            ) from None
        verdict = check(self._login, access, self._house.host, time.time())
        if isinstance(verdict, Refused):
            log.warning("refused job=%r reason=%s: %s", self.job, verdict.reason, verdict.text)
            raise _Turned(verdict.reason, verdict.text)
        job = self._house.find(self.job)
        if job is None:
            raise _Turned("not_ready", f"the sandbox of job {self.job} is not ready; connect again in a moment")
        if self._over.done():
            raise _Turned("left", "the client is gone")
        if not self._house.seen.first_time(self._login.session_id):
            log.warning("refused job=%s reason=replayed", self.job)
            raise _Turned("bad_grant", "this login was used before; connect again")
        digest = hashlib.sha256(self._login.session_id).hexdigest()[:16]
        person = Session(id=digest, user=verdict.user, fingerprint=verdict.fingerprint, client=self._login.client[:100],
                         via=verdict.via)  # fmt: skip
        await job.opened(person)
        return person, job, Rules(access.project, access.services, verdict.bounds, access.recording)

    def _serve(self, person: Session, job: SessionHost, rules: Rules) -> None:
        forwards = self._forwards = Forwards(job, person, rules, self._tasks)
        for why in self._holds:
            forwards.hold(why)

        def new_session() -> ChannelSession:
            session = ChannelSession(job, person, forwards, self, self._tasks)
            self._sessions = [old for old in self._sessions if not old.over] + [session]
            for why in self._holds:
                session.hold(why)
            return session

        self._connection = Connection(new_session, forwards, self._to_client, self._broken)
        early, self._early = self._early, []
        for message in early:
            self._connection.feed(message)

    def _to_client(self, *messages: bytes) -> None:
        if not self._over.done():
            self._send(Kind.DATA, *messages)

    def _broken(self, why: str) -> None:
        if not self._over.done():
            self._tell("protocol", f"pitstop: the connection broke: {why}")
            self._finish("disconnect")

    def _tell(self, reason: str, text: str, after: float = 0) -> None:
        frame = msgspec.msgpack.encode(Close(reason=reason, text=text))
        if after:
            asyncio.get_running_loop().call_later(after, self._send, Kind.CLOSE, frame)
        else:
            self._send(Kind.CLOSE, frame)

    def _finish(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)
        if self._connection is not None:
            self._connection.lost()

    async def _leave(self) -> None:
        if self._connection is not None:
            self._connection.lost()
        if self._tasks:
            _done, late = await asyncio.wait(set(self._tasks), timeout=LEAVE_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _Turned(Exception):
    """Not let in."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.text = f"pitstop: {text}"
