"""How one client proves who it is: by a key, a certificate or an access token. What follows is the guest's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from pitstop_common import certificates, telemetry, userauth
from pitstop_common.credentials import token_id
from pitstop_common.errors import PitstopError
from pitstop_common.limits import JOB
from pitstop_common.link import Open
from pitstop_common.messages import AccessReply, WhoReply, WhoRequest
from pitstop_relay import decide
from pitstop_relay.desk import Desk
from pitstop_relay.link import Link, Links
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.model import Admit, Attempt, Denial
from pitstop_relay.ports import AccessPort
from pitstop_relay.proofs import verifies, verifies_data
from pitstop_relay.slowing import Slowing
from pitstop_relay.transport import Transport

log = logging.getLogger(__name__)

PASSWORDS: Final = 3
"""That one connection may try."""
REFUSED_AFTER: Final = 1.0
"""Seconds from a password to its refusal, whatever was found out meanwhile, and however soon."""
_REPEATED: Final = "key_unknown"
_INNOCENT: Final = frozenset({
    "ended", "no_ssh", "queued", "starting", "host_unreachable", "scheduler_unreachable", "draining",
})  # fmt: skip
"""Refusals of people who have proved who they are: they are asked to come again."""


class House(Protocol):
    """What all logins of a relay share."""

    links: Links
    metrics: RelayMetrics
    slowing: Slowing
    draining: bool

    @property
    def access(self) -> AccessPort:
        """Whom to ask."""


class Refusal(Denial, frozen=True, kw_only=True):
    """A denial, with what is published of it."""

    attempt: Attempt
    access: AccessReply | None
    client: str


class Login:
    """The tries of one client. `admitted` once one is good and leads into a job."""

    def __init__(self, house: House, transport: Transport, clock: Callable[[], float] = time.time) -> None:
        self._house, self._transport, self._clock = house, transport, clock
        self._passwords = PASSWORDS
        self._signed = False
        self._code = ""
        self.method = "publickey"
        self.denials: list[Refusal] = []
        self.admitted: tuple[Link, Open] | None = None

    @property
    def takes_passwords(self) -> bool:
        """Whoever has a key that was refused is told about keys, and not asked for a password."""
        return not self._signed and self._passwords > 0

    async def signed(self, message: bytes, signature: bytes, key: bytes) -> bool:
        """Whether a signed request gets in. The reason for a refusal goes to the client as a banner."""
        self.method = "publickey"
        good = await self._by_signature(message, signature, key)
        if not good:
            self._signed = True
            await asyncio.sleep(self._penalty())
        return good

    async def password(self, job: str, password: str) -> bool:
        """Whether an access token gets in. A wrong one is refused no sooner than any other."""
        self.method = "password"
        if self._passwords <= 0:
            return False
        self._passwords -= 1
        loop = asyncio.get_running_loop()
        earliest = loop.time() + REFUSED_AFTER
        good = await self._by_token(job, password)
        if not good:
            await asyncio.sleep(max(self._penalty(), earliest - loop.time()))
        return good

    def count(self, result: str) -> None:
        """What became of a try."""
        self._house.metrics.auth.labels(self.method, result).inc()

    # -- one try ---------------------------------------------------------------------------------------------------

    async def _by_signature(self, message: bytes, signature: bytes, key: bytes) -> bool:
        certificate = None
        plain = key
        try:
            login = userauth.parse(message)
            if login.algorithm == userauth.SHA1:
                return self._say(decide.sha1(), "sha1")
            sound = (
                login.key == key
                and userauth.within_bounds(key)
                and userauth.fits(login.algorithm, key)
                and userauth.signature_algorithm(signature) == userauth.signed_with(login.algorithm)
            )
            if sound and userauth.is_certificate(login.algorithm):
                self.method = "certificate"
                certificate = certificates.parse(key)
                plain = certificate.key
        except userauth.Malformed:
            sound = False
        if not sound or not verifies(self._transport.session_id, message, signature, plain):
            return self._refused("bad_signature")
        attempt = Attempt(job=login.user, key=userauth.authorized(plain), fingerprint=userauth.fingerprint(plain),
                          certificate=certificate, signature=signature, client=self._transport.client)  # fmt: skip
        if certificate is not None and (fault := certificates.forged(certificate, verifies_data)):
            return self._deny(attempt, decide.forged(attempt, fault), None)
        if not JOB.match(attempt.job) and not self._house.draining:
            return await self._at_desk(attempt, key if certificate is not None else b"")
        return await self._enter(attempt, Open(
            job=login.user, session_id=self._transport.session_id, message=message, signature=signature, key=key,
            client=self._transport.client, client_version=self._transport.version, trace=telemetry.new_trace(),
        ))  # fmt: skip

    async def _by_token(self, job: str, password: str) -> bool:
        token = token_id(password)
        attempt = Attempt(job=job, fingerprint=token, password=password, client=self._transport.client)
        if not token:
            return self._deny(attempt, decide.no_token(), None)
        return await self._enter(attempt, Open(
            job=job, session_id=self._transport.session_id, token=password, client=self._transport.client,
            client_version=self._transport.version, trace=telemetry.new_trace(),
        ))  # fmt: skip

    async def _at_desk(self, attempt: Attempt, certificate: bytes) -> bool:
        """Who names no job is answered by the relay itself, if the key, or its certificate, is somebody's."""
        request = WhoRequest(fingerprint=attempt.fingerprint, certificate=certificate)
        if certificate:
            request = msgspec.structs.replace(request, signature=attempt.signature, client=attempt.client)
        try:
            known = await self._house.access.who(request)
        except PitstopError as error:
            log.warning("no answer to whose a key is: %s", error)
            return self._deny(attempt, decide.scheduler_unreachable(), None)
        if not known.people:
            return self._deny(attempt, decide.no_job(attempt), None)
        self._serve_at_desk(known, attempt.fingerprint)
        return True

    def _serve_at_desk(self, known: WhoReply, fingerprint: str) -> None:
        self._transport.serve(lambda: Desk(known, fingerprint))

    async def _enter(self, attempt: Attempt, proof: Open) -> bool:
        verdict, access = await self._judge(attempt)
        if isinstance(verdict, Denial):
            return self._deny(attempt, verdict, access)
        return await self._admit(attempt, verdict, access, proof)

    async def _judge(self, attempt: Attempt) -> tuple[Admit | Denial, AccessReply | None]:
        if self._house.draining:
            return decide.draining(), None
        token = token_id(attempt.password)
        try:
            access = await self._house.access.access(attempt.job, "" if token else attempt.fingerprint, token=token)
        except PitstopError as error:
            log.warning("no answer to who may enter %s: %s", attempt.job, error)
            return decide.scheduler_unreachable(), None
        return decide.decide(attempt, access, self._clock()), access

    async def _admit(self, attempt: Attempt, admit: Admit, access: AccessReply | None, proof: Open) -> bool:
        try:
            link = await self._house.links.to(admit.host)
        except PitstopError as error:
            log.warning("no link for job %s: %s", attempt.job, error)
            return self._deny(attempt, decide.host_unreachable(attempt.job, admit.host), access)
        self.admitted = (link, proof)
        if self.denials:
            self._banner(decide.found_at_last(attempt, admit))
        return True

    # -- refusals --------------------------------------------------------------------------------------------------

    def _deny(self, attempt: Attempt, denial: Denial, access: AccessReply | None) -> bool:
        attempt = msgspec.structs.replace(attempt, password="", certificate=None, signature=b"")
        if denial.code == "bad_token":  # what was typed is nobody's to know, and the job not theirs to name
            attempt, access = msgspec.structs.replace(attempt, fingerprint=""), None
        again = any(earlier.code == _REPEATED for earlier in self.denials)
        self.denials.append(
            Refusal(code=denial.code, text=denial.text, attempt=attempt, access=access, client=self._transport.client)
        )
        log.info("denied job=%r key=%s reason=%s client=%s", attempt.job, attempt.fingerprint, denial.code,
                 self._transport.client)  # fmt: skip
        shorter = Denial(code=denial.code, text=decide.again(attempt))
        return self._say(shorter if again and denial.code == _REPEATED else denial, denial.code)

    def _say(self, denial: Denial, result: str) -> bool:
        self._banner(denial.text)
        return self._refused(result)

    def _refused(self, result: str) -> bool:
        self._code = result
        self.count(result)
        return False

    def _penalty(self) -> float:
        """Seconds to wait with the answer."""
        if self._code in _INNOCENT:
            return 0.0
        wait = self._house.slowing.failed(self._transport.client.rpartition(":")[0], time.monotonic())
        if wait:
            self._house.metrics.slowed.inc()
        return wait

    def _banner(self, text: str) -> None:
        try:
            self._transport.send_auth_banner(text)
        except OSError:
            log.debug("too late for a banner")
