"""The relay's ports over NATS."""

from __future__ import annotations

from typing import Final

import msgspec

from pitstop_common import subjects, telemetry
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.messages import (
    AccessReply,
    AccessRequest,
    DialReply,
    DialRequest,
    SshDenied,
    WhoReply,
    WhoRequest,
    encode,
)

ACCESS_TIMEOUT: Final = 2.0
DIAL_TIMEOUT: Final = 4.0
"""A host answers when it has dialled."""
STORE_TIMEOUT: Final = 2.0


class Control:
    """Asks, and says, over one connection to NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def access(self, job: str, fingerprint: str, *, token: str = "") -> AccessReply:
        """As `AccessPort`."""
        body = encode(AccessRequest(job=job, fingerprint=fingerprint, token=token))
        reply = await self._bus.request(subjects.service("access"), body, ACCESS_TIMEOUT)
        try:
            return msgspec.json.decode(reply.data, type=AccessReply)
        except msgspec.DecodeError as error:
            raise Unavailable(f"svc.access answered nonsense: {error}") from None

    async def who(self, request: WhoRequest) -> WhoReply:
        """As `AccessPort`."""
        reply = await self._bus.request(subjects.service("who"), encode(request), ACCESS_TIMEOUT)
        try:
            return msgspec.json.decode(reply.data, type=WhoReply)
        except msgspec.DecodeError as error:
            raise Unavailable(f"svc.who answered nonsense: {error}") from None

    async def dial(self, host: str, request: DialRequest) -> DialReply:
        """As `Dialer`."""
        reply = await self._bus.request(subjects.dial(host), encode(request), DIAL_TIMEOUT)
        try:
            return msgspec.json.decode(reply.data, type=DialReply)
        except msgspec.DecodeError as error:
            raise Unavailable(f"host {host} answered nonsense: {error}") from None

    async def publish(self, fact: SshDenied) -> None:
        """As `Events`."""
        subject = subjects.about("ssh.denied", fact.org, fact.run)
        await self._bus.store(subject, encode(fact), telemetry.headers(fact.id), STORE_TIMEOUT)
