"""One attempt of a job on this host, from its claim to the last of its folder."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, get_args

import msgspec

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.messages import (
    HOLD_OVER,
    Command,
    ExpiryReason,
    HostFact,
    JobClaimed,
    JobFinished,
    Pause,
    Result,
    Resume,
    Start,
    Stop,
    Warn,
)
from pitstop_common.pull import rfc3339
from pitstop_common.spec import JobSpec, RunSpec
from pitstop_sandbox.claims import Folders, key_of, patiently
from pitstop_sandbox.flow import PAUSING
from pitstop_sandbox.hosting.metrics import HostMetrics
from pitstop_sandbox.hosting.scheduler import GOES_ON, Scheduler, Verdict, judge
from pitstop_sandbox.hosting.secrets import ADOPTED_PATIENCE, FRESH_PATIENCE, Fetching, NoSecrets
from pitstop_sandbox.hosting.tasks import cancelled
from pitstop_sandbox.ports import FactSink
from pitstop_sandbox.runner import JobRunner

log = logging.getLogger(__name__)

SPEC_PATIENCE: Final = 5.0
"""A spec is written before its start; a replica that lags has so long to show it, seconds."""
ASK_PATIENCE: Final = 45.0
"""For the scheduler to say whether an attempt is still to run, seconds. Then it is adopted all the same: its holder
lives, so this host was away for less than the time after which a job is given to others."""
_ASK_AGAIN: Final = 0.25

F = TypeVar("F", bound=HostFact)


class People(Protocol):
    """Those who are inside the jobs of this host."""

    def warn(self, job: str, text: str) -> None:
        """Show a warning to everybody in a job."""

    async def close_job(self, job: str, notice: str, reason: str = "stopped") -> None:
        """End all connections into a job; each terminal shows `notice`."""


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt needs of the host."""

    bus: Bus
    host: str
    incarnation: str
    folders: Folders
    scheduler: Scheduler
    metrics: HostMetrics
    people: People
    facts: Callable[[str], FactSink]
    """For a trace."""
    secrets: Fetching
    runner: Callable[[RunSpec, JobSpec, Start, str, FactSink, Mapping[str, str]], JobRunner]
    """For the spec, the start, its trace, its facts and its secrets."""
    clear: Callable[[str, Path], Awaitable[None]]
    """Removes whatever sandbox there is of an attempt in a folder."""


class Attempt:
    """An attempt that is claimed, or being claimed, by this host."""

    def __init__(self, home: Home, start: Start, trace: str = "") -> None:
        self._home = home
        self.start = start
        self.key = key_of(start.job, start.attempt)
        self.claimed = False
        self.runner: JobRunner | None = None
        self._begun = asyncio.Event()
        self._facts = home.facts(trace)
        self._trace = trace
        self._folder = home.folders.path(self.key)

    @property
    def paused(self) -> bool:
        """Does it wait for its person."""
        return self.runner is not None and self.runner.state.status in PAUSING

    async def announce(self) -> None:
        """Say that it is claimed."""
        self.claimed = True
        await self._facts.publish(claimed(self.start, self._home.incarnation, self._home.secrets.key))

    def left(self) -> None:
        """This host has it no more, begun or not: who waits to tell it something waits no longer."""
        self._begun.set()

    async def command(self, command: Command) -> None:
        """Do what the scheduler says. Returns when it is written down, or the attempt is over."""
        await self._begun.wait()
        if self.runner is None:
            return
        if isinstance(command, Pause):
            await self.runner.pause(command)
            return
        if isinstance(command, Warn):
            self._home.people.warn(self.start.job, command.notice)
            self.runner.warned()
            return
        if isinstance(command, Resume) and command.reason == HOLD_OVER:  # whoever is inside may stay
            await self.runner.resume(command)
            return
        text = command.notice or f"The job is ended: {command.reason or 'stopped'}."
        # Sessions are told first: one whose processes are killed under it would take that for an end of its own.
        dismissed = asyncio.ensure_future(self._home.people.close_job(self.start.job, text, _closed(command)))
        await asyncio.sleep(0)
        try:
            await (self.runner.stop(command) if isinstance(command, Stop) else self.runner.resume(command))
        finally:
            await dismissed

    async def live(self, *, adopted: bool = False) -> None:
        """Run it to its end, and leave nothing. Cancelled: let go of it."""
        try:
            await self._live(adopted)
        except Exception as error:
            log.exception("attempt %s broke", self.key)
            self._home.metrics.error("adopt" if adopted else "run", "host_failed")
            await self._home.clear(self.key, self._folder)
            code = "host_restarted" if adopted else "host_failed"
            await self._end(code, f"The sandbox host cannot go on with the job: {error}. Run it again.")
        finally:
            self._begun.set()
        await self._home.people.close_job(self.start.job, "The job has ended.")
        await self._home.folders.remove(self._folder)

    async def _live(self, adopted: bool) -> None:
        verdict = await self._verdict() if adopted else GOES_ON
        if adopted and not verdict.over:
            await self.announce()
        found = await self._spec()
        if found is None:
            await self._home.clear(self.key, self._folder)
            await self._end("spec_missing", "The compiled run is not in SPECS any more. Request it again.")
            return
        secrets = await self._secrets(verdict, adopted) if found[1].secrets else {}
        if secrets is None:
            return
        self.runner = self._home.runner(*found, self.start, self._trace or found[0].trace, self._facts, secrets)
        running = asyncio.ensure_future(self.runner.run())
        self._begun.set()
        try:
            if verdict.stop is not None:
                log.info("attempt %s is ended: %s", self.key, verdict.stop.reason)
                await self.runner.stop(verdict.stop)
            await running
        finally:
            await cancelled({running})

    async def _secrets(self, verdict: Verdict, adopted: bool) -> dict[str, str] | None:
        """Those of the job. None: it does not go on, and is ended. It is not even ended by its runner then: what it
        printed last could not be masked."""
        try:
            if verdict.stop is None:
                return await self._home.secrets.fetch(self.start, ADOPTED_PATIENCE if adopted else FRESH_PATIENCE)
            end = finished(self.start, verdict.stop.result, verdict.stop.reason, verdict.stop.notice)
        except NoSecrets as error:
            self._home.metrics.error("run", error.reason)
            end = finished(self.start, "error", error.reason, str(error))
        await self._home.clear(self.key, self._folder)
        await self._facts.publish(end)
        return None

    async def _verdict(self) -> Verdict:
        deadline = asyncio.get_running_loop().time() + ASK_PATIENCE
        while True:
            try:
                return judge(self.start, await self._home.scheduler.job(self.start.job))
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    log.warning("no scheduler answers about %s; it is adopted", self.key)
                    return GOES_ON
                await asyncio.sleep(_ASK_AGAIN)

    async def _spec(self) -> tuple[RunSpec, JobSpec] | None:
        deadline = asyncio.get_running_loop().time() + SPEC_PATIENCE
        while (spec := await read_spec(self._home.bus, self.start.org, self.start.run)) is None:
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(_ASK_AGAIN)
        job = next((job for job in spec.jobs if job.job == self.start.job), None)
        return None if job is None else (spec, job)

    async def _end(self, reason: str, message: str) -> None:
        await self._facts.publish(finished(self.start, "error", reason, message))


async def read_spec(bus: Bus, org: str, run: str) -> RunSpec | None:
    """The compiled run; None when it is not there."""
    msg = await patiently(lambda: bus.request(f"$JS.API.DIRECT.GET.SPECS.{subjects.spec(org, run)}"))
    if "Nats-Sequence" not in (msg.headers or {}):
        return None
    return msgspec.json.decode(msg.data, type=RunSpec)


def _closed(command: Stop | Resume) -> str:
    if isinstance(command, Resume) or command.reason in get_args(ExpiryReason):
        return "expired"
    return "stopped"


def claimed(start: Start, incarnation: str, key: str = "") -> JobClaimed:
    """The fact that this process of the host runs an attempt. `key`: what its secrets are to be sealed to; none for an
    attempt that is claimed only to be ended."""
    return _fact(JobClaimed, start, f"claimed.{incarnation}", key=key)


def finished(start: Start, result: Result, reason: str, message: str = "") -> JobFinished:
    """The fact that an attempt is over, said by the host itself because no runner can."""
    return _fact(JobFinished, start, "finished", result=result, reason=reason, message=message)


def _fact(kind: type[F], start: Start, what: str, **fields: Any) -> F:
    return kind(
        id=f"{key_of(start.job, start.attempt)}.{what}", time=rfc3339(time.time()), org=start.org, run=start.run,
        project=start.project, request=start.request, job=start.job, attempt=start.attempt, cause=start.cause,
        host="", incarnation="", **fields,
    )  # fmt: skip
