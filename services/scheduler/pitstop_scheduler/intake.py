"""Takes in requests: checks, compiles, stores the spec, and says `run.accepted` to the log. Or says why not.

Each message ends in exactly one of two ways, and only then is acknowledged: accepted (its spec stored first), or
rejected (kept in the dead-letter stream first). Doing it twice does nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
from nats.js.errors import APIError

from pitstop_common import ids, subjects
from pitstop_common import messages as m
from pitstop_common.acks import Ack, Refused
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, Unavailable, WrongLastSequence
from pitstop_common.pull import Delivery, Pull, rfc3339
from pitstop_common.redact import without_credentials
from pitstop_common.spec import RunSpec
from pitstop_common.streams import REQ, REQ_ORG, SPECS_DAYS, intake_consumer
from pitstop_common.telemetry import headers, new_trace, trace_of
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.origin import inherit, inherits_session, without_session
from pitstop_scheduler.people import People
from pitstop_scheduler.placing import Placing
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.pool_labels import wanted
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.request import BadRequest, Request, compile_run, read_request

log = logging.getLogger(__name__)

_AT_ONCE = 256
_APART = 0.02
"""Seconds between two batches at the least: an idle intake takes a request at once, a busy one takes some together."""
_HELPS_WITH = 2
_HELPS_APART = 0.1
"""The same of a standby: requests in small parts cost each of several processes as much as many cost one."""
_TRIES = 10
"""Of a request on which the scheduler itself fails."""
_SOON = 5.0
_LATER = 30.0
_LONG_AGO = 30


class Refusal(PitstopError):
    """A sound request that may not run (feature A13): says who can change it, and how."""

    def __init__(self, code: str, faults: tuple[m.Fault, ...], request: Request) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.code = code  # type: ignore[misc]
        self.faults = faults
        self.request = request


class Taken(NamedTuple):
    """An accepted request: where its fact lies in IN."""

    spec: RunSpec
    source: str
    sequence: int


class Intake:
    """Shared by all schedulers: a queue consumer on each of the two request streams."""

    def __init__(
        self, bus: Bus, people: People, policy: Policy, metrics: Metrics, reading: Reading, contexts: Contexts,
        placing: Placing,
    ) -> None:  # fmt: skip
        self._bus, self._people, self._policy, self._metrics = bus, people, policy, metrics
        self._reading, self._contexts, self._placing = reading, contexts, placing

    async def run(
        self, stream: str, stopping: asyncio.Event, owned: Callable[[], Iterable[bool]] = lambda: (True,)
    ) -> None:
        """Take in what comes on REQ or REQ_ORG, many at once, until told to stop. `owned`: does this process decide for
        a partition, one after the other; if for none, it leaves most requests to those that do while these keep up."""
        pull = Pull(self._bus, stream, intake_consumer(), batch=_AT_ONCE)
        begun, behind = 0.0, False
        try:
            while not stopping.is_set():
                helps = not behind and not any(owned())
                await asyncio.sleep(max(0.0, begun + (_HELPS_APART if helps else _APART) - time.monotonic()))
                batch = await pull.next(0.5, _AT_ONCE, (lambda: _HELPS_WITH) if helps else None)
                begun, behind = time.monotonic(), bool(batch) and batch[-1].pending >= _AT_ONCE
                await asyncio.gather(*(self._take(stream, delivery) for delivery in batch))
        finally:
            await pull.close()

    async def accept(self, request: Request, run: str, source: str, trace: str, created: float) -> Taken:
        """Store the spec and say run.accepted. Raises Refusal, BadRequest; Unavailable (then nothing is lost by trying
        again)."""
        request = await self._placing.place(await self._admit(await self._complete(request)))
        spec = compile_run(request, run=run, created=rfc3339(created), trace=trace or new_trace())
        try:
            await self._bus.store(
                subjects.spec(spec.org, run), m.encode(spec),
                {"Nats-Expected-Last-Subject-Sequence": "0", **headers(f"spec.{run}.{source}")},
            )  # fmt: skip
        except WrongLastSequence:
            log.debug("run %s is known", run)
            spec = await self._as_placed(spec)
        ack = await self._bus.store(
            subjects.about("run.accepted", spec.org, run), m.encode(_accepted(spec, source, created)),
            headers(f"accepted.{run}.{source}", spec.trace),
        )  # fmt: skip
        return Taken(spec, source, ack.seq)

    async def _as_placed(self, spec: RunSpec) -> RunSpec:
        """With the pools that its jobs were given when it came first: the best may be another by now."""
        if not any(wanted(job) for job in spec.jobs):
            return spec
        pools = {job.job: job.pool for job in (await self._reading.spec(spec.org, spec.run)).jobs}
        jobs = tuple(msgspec.structs.replace(job, pool=pools.get(job.job, job.pool)) for job in spec.jobs)
        return msgspec.structs.replace(spec, jobs=jobs)

    async def _take(self, stream: str, delivery: Delivery) -> None:
        if stream == REQ and delivery.headers.get("Nats-Stream") == REQ_ORG:
            await self._pass_over(delivery)
            return
        before = time.monotonic()
        try:
            outcome = await self._handle(stream, delivery)
            await delivery.ack()
        except (Unavailable, Refused) as error:  # NATS is away, or a stream is full: no fault of the request
            log.warning("a request waits: %s", error)
            outcome = "nak"
            await delivery.nak(wait_before_next(delivery.deliveries))
        except Exception as error:
            log.exception("a request could not be taken in: %s:%s", stream, delivery.seq)
            outcome = "error"
            if delivery.deliveries < _TRIES:
                await delivery.nak(wait_before_next(delivery.deliveries))
            else:  # the server's advisory brings it to the dead letters
                await delivery.term(f"the scheduler failed on it {delivery.deliveries} times: {type(error).__name__}")
        self._metrics.handled(stream.lower(), outcome, time.monotonic() - before)

    async def _pass_over(self, delivery: Delivery) -> None:
        """The echo of a message that REQ_ORG's own consumer takes in."""
        try:
            if without_credentials(delivery.data)[1]:
                await self._forget(f"{REQ}:{delivery.seq}")
            await delivery.ack()
        except Unavailable as error:
            log.warning("an echo waits: %s", error)
            await delivery.nak(wait_before_next(delivery.deliveries))

    async def _handle(self, stream: str, delivery: Delivery) -> str:
        source = f"{stream}:{delivery.seq}"
        trace = trace_of(delivery.headers)
        org = delivery.subject.split(".")[2] if stream == REQ_ORG else None
        try:
            request = read_request(delivery.data, headers=delivery.headers, org_of_subject=org)
            if request.id:
                run = ids.run_id(request.org, request.id)
            else:
                run = ids.run_id_of_message(request.org, stream, delivery.seq)
            await self.accept(request, run, source, trace, delivery.stored)
        except BadRequest as error:
            await self._reject(delivery, source, error.org, error.request_id, "invalid", error.faults, trace)
            self._metrics.requests.labels("invalid").inc()
            return "ack"
        except Refusal as error:
            found = error.request
            await self._reject(delivery, source, found.org, found.id, error.code, error.faults, trace, found.project)
            self._metrics.requests.labels("rejected").inc()
            return "ack"
        self._metrics.requests.labels("accepted").inc()
        self._metrics.accept.observe(max(0.0, time.time() - delivery.stored))
        return "ack"

    async def _reject(self, delivery: Delivery, source: str, org: str, request: str, code: str,
                      faults: tuple[m.Fault, ...], trace: str, project: str = "") -> None:  # fmt: skip
        run = ids.run_id(org, request) if org and request else ""
        kept = await self._keep(delivery, source, org, faults)
        event = m.RunRejected(
            id=f"rejected.{source}", time=rfc3339(delivery.stored), org=org, run=run, project=project,
            request=request, cause=source, errors=faults, code=code, dead_letter=kept.seq if kept else 0,
        )  # fmt: skip
        await self._bus.store(
            subjects.about("run.rejected", org, run), m.encode(event), headers(event.id, trace or new_trace())
        )
        if without_credentials(delivery.data)[1]:
            await self._forget(source)

    async def _keep(self, delivery: Delivery, source: str, org: str, faults: tuple[m.Fault, ...]) -> Ack | None:
        stream, _, sequence = source.partition(":")
        body, cut = without_credentials(delivery.data)
        reason = faults[0].message[:400] + (" (kept with the credential cut out)" if cut else "")
        about = {"Pitstop-Stream": stream, "Pitstop-Seq": sequence, "Pitstop-Subject": delivery.subject,
                 "Pitstop-Reason": reason.encode("ascii", "replace").decode()}  # fmt: skip
        try:
            return await self._bus.store(subjects.dead_letter(stream, org), body, {**headers(f"dlq.{source}"), **about})
        except Refused as error:
            log.error("a bad request cannot be kept: %s", error)
            return None

    async def _forget(self, source: str) -> None:
        """Overwrite a message in its stream: a credential that came with it is not to lie there for days. The caller
        has the message still, and may have it again until it is acked. Raises Unavailable."""
        stream, _, sequence = source.partition(":")
        with contextlib.suppress(APIError):  # it is gone already
            await self._bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": int(sequence)})

    async def _complete(self, request: Request) -> Request:
        """A rerun with what the earlier run gives it. Raises BadRequest, Unavailable."""
        if request.again is None:
            return request
        try:
            origin = await self._reading.spec(request.org, request.again.of)
            results = await self._reading.results(request.org, origin.run) if request.again.failed else {}
        except NotFound:
            text = f"there is no run {request.again.of} in org {request.org} (a run is kept for {SPECS_DAYS} days)"
            raise BadRequest((m.Fault(pointer="/rerun_of", message=text),), request.org, request.id) from None
        return inherit(request, origin, results)

    async def _admit(self, request: Request) -> Request:
        await self._admit_secrets(request)
        if not request.ssh:
            return request
        session = request.session
        barred = [self._policy.barred(request.org, request.project, user) for user in (request.actor, *session.users)]
        asker = barred[0] if request.actor or not session.users or all(barred) else None
        if asker is not None:
            if asker.code == "ssh_disabled" and inherits_session(request):
                return without_session(request, f"{asker.text}: this run offers no session")
            text = f"{asker.text}; or leave `ssh` out of the request"
            raise Refusal(asker.code, (m.Fault(pointer="/ssh", message=text),), request)
        named = (request.actor, *session.users)
        found = await self._people.allowed(request.org, request.actor, named, session.keys)
        ways = {*(key.user for key in found.keys), *found.pending}
        if self._policy.ssh(request.org).user_ca:  # who has no key may have a certificate
            ways |= {user for user in named if user}
        if all(self._policy.barred(request.org, request.project, user) for user in ways):
            who = " or ".join(filter(None, [request.actor, *session.users])) or "the actor (none is named)"
            text = (f"nobody could enter: no SSH key is registered for {who} in org {request.org}. Register one with "
                    "`pitstop keys add ~/.ssh/id_ed25519.pub`, or send one in `ssh.keys`")  # fmt: skip
            text += "; or rerun without the session of the first run (`--no-ssh`)" * inherits_session(request)
            raise Refusal("ssh_no_key", (m.Fault(pointer="/ssh", message=text),), request)
        return request

    async def _admit_secrets(self, request: Request) -> None:
        """May the run have the contexts that it names: asked again when its host fetches them."""
        why = await self._contexts.refusals(
            request.org, request.contexts, actor=request.actor, project=request.project, vouched=request.vouched
        )
        if why:
            faults = tuple(m.Fault(pointer=request.contexts[name], message=text) for name, text in why.items())
            raise Refusal("secrets_refused", faults, request)


def wait_before_next(deliveries: int) -> float:
    """Seconds until a request is tried again: short waits for the first two minutes, as most outages are short."""
    return min(_SOON if deliveries < _LONG_AGO else _LATER, 0.1 * 2.0 ** min(deliveries, 10))


def _accepted(spec: RunSpec, source: str, created: float) -> m.RunAccepted:
    session = spec.session
    return m.RunAccepted(
        id=f"accepted.{spec.run}.{source}", time=rfc3339(created), org=spec.org, run=spec.run, project=spec.project,
        request=spec.request, cause=source, actor=spec.actor, priority=spec.priority,
        jobs=tuple(m.AcceptedJob(job=job.job, key=job.key, pool=job.pool, ssh=job.pause.any) for job in spec.jobs),
        connect_window=session.connect_window, idle_timeout=session.idle_timeout, max_duration=session.max_duration,
        on_expiry=session.on_expiry, retry=spec.retry,
        ref=spec.source.ref, rerun_of=spec.rerun_of, notes=spec.notes, trace=spec.trace, source=source,
    )  # fmt: skip


def new_request_id() -> str:
    """For a request over the API that names none."""
    return uuid.uuid4().hex
