"""What a host asks the scheduler: who may enter a job, and whether it is still to run."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.messages import (
    AccessReply,
    AccessRequest,
    JobView,
    Result,
    SecretsReply,
    SecretsRequest,
    Start,
    Stop,
    encode,
)

_ERROR_CODE: Final = "Nats-Service-Error-Code"
_LATER: Final = ("404", "409")
"""The log may not have come to the claim, or to the job, yet."""

T = TypeVar("T", bound=msgspec.Struct)


class SecretsRefused(PitstopError):
    """The scheduler does not give the secrets of a job. `later`: it may in a moment."""

    def __init__(self, text: str, *, later: bool) -> None:
        super().__init__(text)
        self.later = later


class Scheduler:
    """Requests to whichever scheduler owns the log."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def access(self, job: str, *, token: str = "") -> AccessReply:
        """Who may enter a job, and what is known of a token (by its id). Raises Unavailable."""
        found = await self._ask("access", AccessRequest(job=job, token=token), AccessReply)
        return found or AccessReply(found=False, job=job)

    async def job(self, job: str) -> JobView | None:
        """A job as the log has it; None: it has none such. Raises Unavailable."""
        return await self._ask("job", AccessRequest(job=job), JobView)

    async def secrets(self, asked: SecretsRequest) -> SecretsReply:
        """The secrets of a job, sealed to the key of this host. Raises SecretsRefused, Unavailable."""
        msg = await self._bus.request(subjects.service("secrets"), encode(asked))
        code = (msg.headers or {}).get(_ERROR_CODE, "")
        if code:
            text = (msg.headers or {}).get("Nats-Service-Error", "")
            if code == "503":
                raise Unavailable(text)
            raise SecretsRefused(text, later=code in _LATER)
        try:
            return msgspec.json.decode(msg.data, type=SecretsReply)
        except msgspec.MsgspecError:
            raise Unavailable("the scheduler's answer with secrets makes no sense") from None

    async def _ask(self, verb: str, question: msgspec.Struct, answer: type[T]) -> T | None:
        msg = await self._bus.request(subjects.service(verb), encode(question))
        code = (msg.headers or {}).get(_ERROR_CODE, "")
        if code == "404" or msg.data == b"null":
            return None
        try:
            return msgspec.json.decode(msg.data, type=answer)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the scheduler's answer to {verb} makes no sense ({code}): {error}") from error


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of an attempt that a host has. `stop`: how it is to be ended; None: it goes on.
    `over`: the log waits for nothing more from it."""

    stop: Stop | None = None
    over: bool = False


GOES_ON: Final = Verdict()


def judge(start: Start, view: JobView | None) -> Verdict:
    """What the log means for an attempt. Pure."""
    if view is None:
        return _over(start, "error", "unknown", "The scheduler does not know this job any more.")
    if view.attempt > start.attempt:
        return _over(start, "error", "superseded", f"Attempt {view.attempt} of this job has taken over.")
    if view.attempt == start.attempt and view.status == "queued":
        return _over(start, "error", "superseded", "This attempt was lost; the job waits to be tried again.")
    if view.attempt < start.attempt or view.status not in ("finished", "stopping"):
        return GOES_ON
    result = view.result or "cancellation"
    verdict = _over(start, result, view.reason, f"The job has ended: {result}.")
    return msgspec.structs.replace(verdict, over=view.status == "finished")


def _over(start: Start, result: Result, reason: str, notice: str) -> Verdict:
    stop = Stop(
        org=start.org, run=start.run, job=start.job, attempt=start.attempt, result=result, reason=reason,
        notice=notice, cause=start.cause,
    )  # fmt: skip
    return Verdict(stop=stop, over=True)
