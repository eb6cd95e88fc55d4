"""Everything the demo hears on NATS, in the order it came, and how to wait for some of it."""

import asyncio
import time
from typing import Any, Final, NamedTuple

from demo_show import DemoError, Show, words_of

NAMES: Final = (
    "run.requested", "run.rejected", "run.queued", "run.started", "run.finished", "sandbox.ready", "sandbox.failed",
    "step.started", "step.finished", "job.paused", "job.resumed", "ssh.connected", "ssh.denied", "ssh.closed",
    "session.expiring", "session.expired",
)  # fmt: skip
_ENDS: Final = ("run.finished", "run.rejected")


class Heard(NamedTuple):
    """One message. `at`: when it came, in seconds since the epoch."""

    name: str
    request: str
    event: dict[str, Any]
    at: float


class Events:
    """Runs are told apart by `request`: the id that their publisher gave them."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._heard: list[Heard] = []
        self._news = asyncio.Event()

    def hear(self, name: str, event: dict[str, Any]) -> None:
        """For `listen.listening`."""
        if name == "step.started" and event["attempts"] == 1:
            return  # its end says enough
        request = event["id"] if name == "run.requested" else event["request"]
        self._heard.append(Heard(name, request, event, time.time()))
        since = self._heard[-1].at - next(heard.at for heard in self._heard if heard.request == request)
        self._show.event(request, name, words_of(name, event, since))
        self._news.set()

    async def wait(self, request: str, name: str, seconds: float = 15.0, **fields: Any) -> Heard:
        """The first such event with these fields. DemoError when the run ends without it, or the time is up."""
        deadline = time.monotonic() + seconds
        wanted = f"{name}{''.join(f', {key} {value}' for key, value in fields.items())}"
        while True:
            self._news.clear()
            for heard in self._heard:
                if heard.request == request and heard.name == name and fields.items() <= heard.event.items():
                    return heard
                if heard.request == request and heard.name in _ENDS:
                    raise DemoError(f"the {request} run ended ({heard.name}) without {wanted}")
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._news.wait()
            except TimeoutError:
                names = ", ".join(self.names(request)) or "nothing"
                raise DemoError(f"no {wanted} of the {request} run within {seconds:g} s; heard: {names}") from None

    def names(self, request: str) -> list[str]:
        """The subjects heard about a run, in order."""
        return [heard.name for heard in self._heard if heard.request == request]

    def position(self, heard: Heard) -> int:
        """Its place among all that was heard."""
        return self._heard.index(heard)
