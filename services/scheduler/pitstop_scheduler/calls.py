"""A call of the API: who asks, and what its body says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from nats.errors import Error as NatsError
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError
from pitstop_common.faults import Faults, TooManyFaults
from pitstop_common.messages import Fault
from pitstop_common.permissions import is_inbox
from pitstop_common.telemetry import headers
from pitstop_common.validation import check_struct
from pitstop_scheduler.logs import Logs

log = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)
DECIDED_WITHIN: Final = 5.0
"""Seconds until the log has decided on what was asked."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as the server's permissions vouch for."""

    org: str
    actor: str


Asked = (
    m.RunCancel | m.RunExtend | m.RunPause | m.OrgConfigured | m.PoolConfigured | m.HoldSet | m.HoldRemove | m.HostDrain
)
"""Facts that say what a person wants."""
_AT_ONCE: Final = 2000
"""Answers that wait, in one scheduler."""

Answer = Callable[[MicroRequest], Awaitable[None]]
Handler = Callable[[Caller, MicroRequest], Awaitable[Any]]


class Wrong(PitstopError):
    """The request's body cannot be used. `faults` name its faulty fields."""

    code = "invalid"

    def __init__(self, text: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(text)
        self.faults = faults


class Teller:
    """Stores what people ask as facts, and waits until the log has decided on them."""

    def __init__(self, bus: Bus, logs: Logs) -> None:
        self._bus, self._logs = bus, logs

    async def tell(self, fact: Asked, trace: str = "", *, token: str = "") -> None:
        """`token`: stands in the place of the org, of a fact about none. Raises Unavailable: it may or may not be
        stored and decided."""
        subject = subjects.about(str(fact.__struct_config__.tag), token or fact.org, fact.run)
        ack = await self._bus.store(subject, m.encode(fact), headers(fact.id, trace))
        await self._logs.of(token or fact.org).wait_for(ack.seq, DECIDED_WITHIN)


def body_of(request: MicroRequest) -> dict[str, Any]:
    """Raises Wrong when it is no JSON object."""
    try:
        found = msgspec.json.decode(request.data or b"{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Wrong(f"the body must be a JSON object: {error}") from error
    return found


def checked(request: MicroRequest, struct: type[S]) -> S:
    """The body as `struct`. Raises Wrong, which names every faulty field."""
    faults = Faults()
    sound: dict[str, Any] = {}
    with contextlib.suppress(TooManyFaults):
        sound = check_struct(body_of(request), struct, faults)
    if faults:
        text = "; ".join(f"`{fault.pointer.lstrip('/')}` {fault.message}" for fault in faults.found)
        raise Wrong(text, faults.found)
    return msgspec.convert(sound, struct)


def text_of(request: MicroRequest, name: str) -> str:
    """A field that must be a text. Raises Wrong, and NotFound when it is no id of a run or a job."""
    value = body_of(request).get(name)
    if not isinstance(value, str) or not value or len(value) > 16_384:
        raise Wrong(f"`{name}` must be a text that is not empty")
    if name in {"run", "job"} and not value.replace("-", "").isalnum():
        raise NotFound(f"there is no {name} of that id")
    return value


def answerable(request: MicroRequest) -> bool:
    """Does the asker want the answer in an inbox. Anywhere else it would be published with the scheduler's rights."""
    return is_inbox(request._msg.reply)


def to_inboxes(answer: Answer) -> Answer:
    """An endpoint that passes over who wants an answer elsewhere."""

    async def guarded(request: MicroRequest) -> None:
        if answerable(request):
            await answer(request)

    return guarded


class Waiting:
    """Requests whose answers wait for something. They are answered beside each other: an endpoint's own are not."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def beside(self, answer: Answer) -> Answer:
        """The same endpoint, that keeps nobody else waiting."""

        async def work(request: MicroRequest) -> None:
            try:
                await answer(request)
            except NatsError as error:  # the connection is gone, and the asker asks again
                log.debug("an answer is not sent: %s", error)

        async def begin(request: MicroRequest) -> None:
            if len(self._tasks) >= _AT_ONCE:
                return  # the asker asks again
            task = asyncio.create_task(work(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return begin

    async def close(self) -> None:
        """Let go of those that wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
