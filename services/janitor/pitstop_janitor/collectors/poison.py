"""Messages that a consumer gave up on are kept in the dead-letter stream, where people can see and replay them."""

from __future__ import annotations

import base64
import contextlib
import logging
from typing import Final

import msgspec
from nats.js.errors import NotFoundError
from prometheus_client import Histogram

from pitstop_common import limits, streams, subjects, telemetry
from pitstop_common.bus import Bus
from pitstop_common.pull import Delivery
from pitstop_common.redact import without_credentials
from pitstop_janitor.collectors.pulled import PulledCollector, Unusable
from pitstop_janitor.metrics import JanitorMetrics

log = logging.getLogger(__name__)

_HEADER_ROOM: Final = 8 * 1024
_REASON_CHARS: Final = 500
_DROPPED: Final = "Unacknowledged message was deleted"
"""The server's reason when the stream itself dropped a message that a consumer had in hand."""
_COME_AND_GO: Final = (streams.TIMERS, streams.WORK)
"""There it is nothing to tell: a newer deadline took the place of one that moved; or a start was acked, and the server
killed before it had written down more than that the message is gone."""
_MAX_DELIVERIES: Final = "io.nats.jetstream.advisory.v1.max_deliver"


class Advisory(msgspec.Struct, frozen=True):
    """The server's word that a consumer will not have a message again."""

    type: str
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0
    reason: str = ""


class Poisoned(msgspec.Struct, frozen=True):
    """The message itself, when its stream still has it."""

    subject: str = ""
    data: bytes = b""
    trace: str = ""
    missing: bool = False


class _Org(msgspec.Struct, frozen=True):
    org: str = ""


_decode_advisory = msgspec.json.Decoder(Advisory).decode
_decode_org = msgspec.json.Decoder(_Org).decode


class Poison(PulledCollector):
    """Reads the server's advisories about our own streams."""

    name = "poison"

    def __init__(self, bus: Bus, metrics: JanitorMetrics, handled: Histogram) -> None:
        super().__init__(
            bus, streams.POISON, streams.poison_consumer(), handled=handled, waiting=metrics.orphans.labels("message")
        )
        self._reclaimed = metrics.reclaimed

    async def handle(self, delivery: Delivery) -> bool:
        """Copy the message; count it when no other janitor had."""
        advisory = advised(delivery.data)
        if advisory.stream not in streams.CONSUMED:
            return False  # another program's, in the same account
        if advisory.stream in _COME_AND_GO and advisory.reason == _DROPPED:
            return False
        found = await self._load(advisory)
        data, cut = without_credentials(found.data)
        message = msgspec.structs.replace(found, data=data)
        body = data[: self.bus.nc.max_payload - _HEADER_ROOM]
        subject = subjects.dead_letter(advisory.stream, org_of(message.data))
        headers = letter_headers(advisory, message, len(body))
        if cut:
            headers["Pitstop-Cut"] = "a credential in the source of the request"
        ack = await self.bus.store_surely(subject, body, headers)
        if not ack.duplicate:
            self._reclaimed.labels("message", _reason_label(advisory)).inc()
        return not ack.duplicate

    async def _load(self, advisory: Advisory) -> Poisoned:
        try:
            reply = await self.bus.api(f"STREAM.MSG.GET.{advisory.stream}", {"seq": advisory.stream_seq})
        except NotFoundError:  # a work queue drops what is terminated
            return Poisoned(missing=True)
        message = reply["message"]
        return Poisoned(
            subject=message["subject"], data=base64.b64decode(message.get("data", "")),
            trace=telemetry.trace_of(_parse_headers(base64.b64decode(message.get("hdrs", "")))),
        )  # fmt: skip


def advised(body: bytes) -> Advisory:
    """Raises Unusable."""
    try:
        return _decode_advisory(body)
    except msgspec.DecodeError as error:
        raise Unusable(f"not an advisory: {error}") from error


def org_of(body: bytes) -> str:
    """The org that a message names; empty when it names none that could be one."""
    with contextlib.suppress(msgspec.DecodeError):
        org = _decode_org(body).org
        return org if limits.ORG.match(org) else ""
    return ""


def letter_headers(advisory: Advisory, message: Poisoned, kept: int) -> dict[str, str]:
    """What `pitstop dlq` shows of a letter and needs to replay it. `kept`: bytes of the body that were kept."""
    headers = telemetry.headers(f"dlq.{advisory.stream}:{advisory.stream_seq}", message.trace)
    headers["Pitstop-Stream"] = advisory.stream
    headers["Pitstop-Seq"] = str(advisory.stream_seq)
    headers["Pitstop-Reason"] = _reason(advisory)
    if message.subject:
        headers["Pitstop-Subject"] = message.subject
    if message.missing:
        headers["Pitstop-Missing"] = "the stream had dropped the message already"
    if kept < len(message.data):
        headers["Pitstop-Truncated"] = str(len(message.data))
    return headers


def _reason(advisory: Advisory) -> str:
    text = advisory.reason or f"{advisory.consumer} tried it {advisory.deliveries} times"
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_REASON_CHARS])


def _reason_label(advisory: Advisory) -> str:
    return "max_deliveries" if advisory.type == _MAX_DELIVERIES else "terminated"


def _parse_headers(block: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in block.decode(errors="replace").split("\r\n")[1:])
    return {name.strip(): value.strip() for name, colon, value in lines if colon}
