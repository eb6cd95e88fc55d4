"""Deadlines that are due become `session.expired`, those that come near `session.warned`. Whether one still holds is
for the log to say: it knows the revision."""

from __future__ import annotations

import msgspec
from prometheus_client import Histogram

from pitstop_common import limits, streams, telemetry
from pitstop_common.bus import Bus
from pitstop_common.messages import Fired, SessionExpired, SessionWarned
from pitstop_common.pull import Delivery, rfc3339
from pitstop_janitor.collectors.pulled import PulledCollector, Unusable
from pitstop_janitor.collectors.saying import say
from pitstop_janitor.metrics import JanitorMetrics

_decode = msgspec.json.Decoder(Fired).decode


class Expiry(PulledCollector):
    """Reads the fired timers. Only the janitor may say `session.expired`."""

    name = "expiry"

    def __init__(self, bus: Bus, metrics: JanitorMetrics, handled: Histogram) -> None:
        super().__init__(
            bus, streams.TIMERS, streams.expiry_consumer(), handled=handled, waiting=metrics.orphans.labels("session")
        )
        self._reclaimed = metrics.reclaimed

    async def handle(self, delivery: Delivery) -> bool:
        """Say it; count it when no other janitor had said it."""
        fact = expired(delivery.data, time=rfc3339(delivery.stored), cause=f"{streams.TIMERS}:{delivery.seq}")
        news = await say(self.bus, fact, telemetry.trace_of(delivery.headers))
        if news and isinstance(fact, SessionExpired):
            self._reclaimed.labels("session", fact.reason).inc()
        return news


def expired(body: bytes, *, time: str, cause: str) -> SessionExpired | SessionWarned:
    """The fact that a fired timer stands for: the same bytes whichever janitor makes it. Raises Unusable."""
    try:
        fired = _decode(body)
    except msgspec.DecodeError as error:
        raise Unusable(f"not a deadline: {error}") from error
    for name, form in (("org", limits.ORG), ("run", limits.RUN), ("job", limits.JOB)):
        if not form.match(getattr(fired, name)):
            raise Unusable(f"not a deadline: {name} {getattr(fired, name)!r} is no {name} id")
    kind, word = (SessionWarned, "warned") if fired.warn else (SessionExpired, "expired")
    return kind(
        id=f"{word}.{fired.job}.{fired.attempt}.{fired.reason}.{fired.revision}",
        time=time, cause=cause, org=fired.org, run=fired.run, project=fired.project, request=fired.request,
        job=fired.job, attempt=fired.attempt, reason=fired.reason, revision=fired.revision,
    )  # fmt: skip
