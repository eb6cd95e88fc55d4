"""A sandbox host: takes starts while it has room, runs each in a sandbox, lets people in, and says all of it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from nats.aio.msg import Msg

from pitstop_common import subjects
from pitstop_common.errors import ConfigError
from pitstop_common.lifecycle import Runtime
from pitstop_common.messages import DialReply, DialRequest, Start, Stop, SweepRequest, encode
from pitstop_common.sealing import HostKey
from pitstop_common.spec import JobSpec, RunSpec
from pitstop_sandbox.backends.choosing import Choice, choose
from pitstop_sandbox.backends.port import Backend, BackendError, Limits, SandboxSpec
from pitstop_sandbox.channels.ready import Wishes
from pitstop_sandbox.channels.seen import Seen
from pitstop_sandbox.claims import Claims, Folders, key_of
from pitstop_sandbox.config import SandboxConfig, host_id, next_incarnation, only_one, ssh_address
from pitstop_sandbox.hosting.attempts import Home
from pitstop_sandbox.hosting.commands import Commands
from pitstop_sandbox.hosting.drained import Drained
from pitstop_sandbox.hosting.leftovers import Leftovers
from pitstop_sandbox.hosting.metrics import HostMetrics
from pitstop_sandbox.hosting.presence import Presence
from pitstop_sandbox.hosting.scheduler import Scheduler
from pitstop_sandbox.hosting.secrets import Fetching
from pitstop_sandbox.hosting.starts import Starts
from pitstop_sandbox.hosting.table import Table
from pitstop_sandbox.hosting.tasks import alone, cancelled, for_ever, within
from pitstop_sandbox.link import SshHost
from pitstop_sandbox.outbox import Identity
from pitstop_sandbox.ports import FactSink
from pitstop_sandbox.runner import JobRunner
from pitstop_sandbox.settings import Settings
from pitstop_sandbox.sinks import LogRoom, NatsCasts, NatsFacts, NatsLogs

log = logging.getLogger(__name__)

SAY_WITHIN: Final = 2.0
"""For the last announcement of room, and for claims on their way, seconds. All of these are within STOP_DEADLINE."""
LEAVE_WITHIN: Final = 8.0
"""For people to be told and disconnected, seconds."""
END_WITHIN: Final = 12.0
"""For jobs to end when they end with the host, seconds."""

_STOPPED: Final = "The sandbox host is being stopped; the job ends with it. Run it again."
_LEFT: Final = "pitstop: the sandbox host is being restarted. Your job waits; connect again in a moment."
_ISOLATED: Final = "The sandbox host has lost the message server for too long; the job is ended."


async def serve(runtime: Runtime, config: SandboxConfig, backend: Backend | None = None) -> None:
    """The service's loop: until it is told to stop. `backend` instead of the one in the settings, for tests."""
    with only_one(config.dir):
        choice = Choice(backend, "") if backend else await choose(config)
        backend = choice.backend
        log.info("sandboxes: %s", choice.found)
        try:
            async with asyncio.TaskGroup() as group:
                host = Host(runtime, config, choice, group)
                await host.start()
                await runtime.stopping.wait()
                await host.stop()
        finally:
            await backend.aclose()


class Host:
    """One incarnation of a host."""

    def __init__(self, runtime: Runtime, config: SandboxConfig, choice: Choice, group: asyncio.TaskGroup) -> None:
        self._runtime, self._config, self._choice, self._group = runtime, config, choice, group
        backend = self._backend = choice.backend
        self.id = host_id(config)
        self.incarnation = next_incarnation(config.dir)
        bus = runtime.bus
        self._metrics = HostMetrics(runtime.metrics, backend.name)
        self._table = Table(config.capacity)
        self._metrics.count_jobs(lambda paused: self._table.count(paused=paused))
        self._log_room = LogRoom(self._metrics.lines)
        self._wishes = Wishes() if config.ready_shell else None
        scheduler = Scheduler(bus)
        self._people = self._ssh(scheduler)
        key = HostKey.kept(config.dir / "host.key")
        self._home = Home(
            bus=bus, host=self.id, incarnation=self.incarnation, folders=Folders(config.dir), scheduler=scheduler,
            metrics=self._metrics, people=self._people, facts=self._facts, runner=self._runner, clear=self._clear,
            secrets=Fetching(scheduler, key, self.id, self.incarnation),
        )  # fmt: skip
        claims = Claims(bus, self.id, self.incarnation)
        self._presence = Presence(bus, config, self.id, self.incarnation, backend.name, self._table, self._metrics,
                                  backend.alive)  # fmt: skip
        self._starts = Starts(self._home, self._table, claims, config.pool, group)
        self._commands = Commands(self._home, self._table, claims, group, self._told)
        self._leftovers = Leftovers(self._home, self._table, self._starts, backend, config.dir)
        self._loops: list[asyncio.Task[None]] = []
        self._endings: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what is there, then take work. Returns when it does."""
        await self._starts.adopt()
        self._backend.expects(not self._table.closed)
        await self._runtime.bus.subscribe(subjects.dial(self.id), self._dial)
        await self._runtime.bus.subscribe(subjects.sweep(self.id), self._sweep)
        presence = self._presence
        for loop in (lambda: presence.hearts(self._isolated), presence.rooms, self._commands.pull, self._starts.pull,
                     self._leftovers.every_minute):  # fmt: skip
            self._loops.append(self._group.create_task(for_ever(loop)))
        await self._runtime.bus.heard()
        self._runtime.ready(
            host=self.id, incarnation=self.incarnation, backend=self._backend.name, sandboxes=self._choice.found
        )  # fmt: skip

    async def stop(self) -> None:
        """Hand back, tell people, and end or leave the jobs. Within STOP_DEADLINE."""
        self._presence.stop()
        self._backend.expects(False)
        heart, *loops = self._loops
        await cancelled(loops)
        async with asyncio.TaskGroup() as group:
            group.create_task(within(SAY_WITHIN, self._presence.announce()))
            group.create_task(self._commands.stop())
            group.create_task(self._starts.stop(SAY_WITHIN))
        if self._config.jobs_at_stop == "end":
            self._end_all("host_stopped", _STOPPED)
            await within(END_WITHIN, self._table.until_empty())
        if isinstance(self._people, SshHost):
            await within(LEAVE_WITHIN, self._people.aclose("disconnect", _LEFT))
        await self._starts.let_go()
        await cancelled([heart, *self._endings])
        if not len(self._table):
            await self._presence.leave()

    # -- what the rest is given ------------------------------------------------------------------------------------

    def _ssh(self, scheduler: Scheduler) -> SshHost | Nobody:
        config = self._config
        if not config.tls_ca:
            log.warning("PITSTOP_TLS_CA is not set: nobody can enter the jobs of this host")
            return Nobody()
        logging.getLogger("asyncssh").setLevel(logging.ERROR)  # it would log what people type as commands
        return SshHost(
            scheduler, self._table.find, host=self.id, incarnation=self.incarnation, tls=link_tls(config),
            seen=Seen(config.dir / "seen"),
        )  # fmt: skip

    def _facts(self, trace: str) -> FactSink:
        return NatsFacts(
            self._runtime.bus, host=self.id, incarnation=self.incarnation, trace=trace, seen=self._metrics.fact
        )

    def _runner(self, spec: RunSpec, job: JobSpec, start: Start, trace: str, facts: FactSink,
                secrets: Mapping[str, str]) -> JobRunner:  # fmt: skip
        folder = self._home.folders.path(key_of(start.job, start.attempt))
        return JobRunner(
            with_limits(spec, start), with_hold(job, start), start.attempt, folder, self._backend, facts,
            NatsLogs(self._runtime.bus, self._log_room, trace), Identity(self.id, self.incarnation),
            lambda job: ssh_address(self._config, job), cause=start.cause, secrets=secrets,
            settings=Settings(checkout=self._config.checkout, wishes=self._wishes,
                              limits=Limits(processes=self._config.sandbox_processes)),
            say=lambda text: self._people.notice(start.job, text), casts=NatsCasts(self._runtime.bus),
        )  # fmt: skip

    async def _clear(self, key: str, folder: Path) -> None:
        try:
            sandbox = await self._backend.adopt(SandboxSpec(id=key, folder=folder))
            if sandbox is not None:
                await sandbox.remove()
        except BackendError as error:
            self._metrics.error("remove", error.code)
            log.error("cannot remove the sandbox of %s: %s", key, error)

    # -- what may happen -------------------------------------------------------------------------------------------

    def _isolated(self) -> None:
        log.error("no heartbeat was stored for %g s: the jobs of this host are ended", self._config.orphan_grace)
        self._end_all("host_isolated", _ISOLATED)

    def _end_all(self, reason: str, notice: str) -> None:
        for attempt in self._table:
            start = attempt.start
            stop = Stop(
                org=start.org, run=start.run, job=start.job, attempt=start.attempt, result="error", reason=reason,
                notice=notice,
            )  # fmt: skip
            task = self._group.create_task(alone(attempt.command(stop)))
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    def _told(self, drained: Drained) -> None:
        self._presence.told(drained)
        self._backend.expects(not self._table.closed)
        self._starts.look()

    async def _sweep(self, msg: Msg) -> None:
        self._group.create_task(alone(self._answer_sweep(msg)))

    async def _answer_sweep(self, msg: Msg) -> None:
        with self._metrics.handling("sweep") as outcome:
            try:
                request = msgspec.json.decode(msg.data, type=SweepRequest)
            except msgspec.MsgspecError as error:
                outcome.name = "error"
                log.warning("not a sweep request: %s", error)
                return
            reply = await self._leftovers.asked(request)
            if msg.reply:
                await self._runtime.bus.publish(msg.reply, encode(reply))

    async def _dial(self, msg: Msg) -> None:
        self._group.create_task(self._answer_dial(msg))

    async def _answer_dial(self, msg: Msg) -> None:
        with self._metrics.handling("dial") as outcome:
            try:
                request = msgspec.json.decode(msg.data, type=DialRequest)
                reply = await self._people.dial(request)
            except msgspec.MsgspecError as error:
                outcome.name = "error"
                reply = DialReply(ok=False, error=f"not a dial request: {error}")
            if msg.reply:
                await self._runtime.bus.publish(msg.reply, encode(reply))


def with_limits(spec: RunSpec, start: Start) -> RunSpec:
    """The run as it is here: what its org says of it is known since its start."""
    if not start.max_duration:
        return spec
    return msgspec.structs.replace(
        spec, session=msgspec.structs.replace(spec.session, max_duration=start.max_duration)
    )  # fmt: skip


def with_hold(job: JobSpec, start: Start) -> JobSpec:
    """The job as it is here, with the hold that was armed when it was started."""
    if not start.hold:
        return job
    return msgspec.structs.replace(
        job, pause=msgspec.structs.replace(job.pause, hold=start.hold, hold_user=start.hold_user)
    )


class Nobody:
    """A host that nobody can enter."""

    async def dial(self, request: DialRequest) -> DialReply:
        """Always refused."""
        return DialReply(ok=False, error="this host has no certificate for links: set PITSTOP_TLS_CA, _CERT and _KEY")

    def notice(self, job: str, text: str) -> None:
        """Nobody hears it."""

    def warn(self, job: str, text: str) -> None:
        """Nobody hears it."""

    async def close_job(self, job: str, notice: str, reason: str = "stopped") -> None:
        """There are no connections."""


def link_tls(config: SandboxConfig) -> ssl.SSLContext:
    """A client's TLS 1.3 with this host's certificate. Raises ConfigError that names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(config.tls_ca)
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read {config.tls_ca}, {config.tls_cert} or {config.tls_key}: {error}") from error
    return context
