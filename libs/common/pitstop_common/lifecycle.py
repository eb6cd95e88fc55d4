"""A service's life: settings, logging, NATS, HTTP, signals, one deadline for the end.

`run(name, Config, main)` is the whole of a service's `__main__`; `main(runtime, config)` is its loop. SIGTERM sets
`runtime.stopping`; `main` then stops pulling, finishes or hands back, tells its sessions, and returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import nats.micro
from nats.micro.service import Service

from pitstop_common.bus import Bus
from pitstop_common.config import ServiceConfig, address, load
from pitstop_common.errors import ConfigError, PitstopError
from pitstop_common.http import HttpServer
from pitstop_common.provision import provision
from pitstop_common.telemetry import VERSION, ServiceMetrics

log = logging.getLogger(__name__)

C = TypeVar("C", bound=ServiceConfig)
_BEAT: Final = 0.25
_BLOCKED_AFTER: Final = 5.0
_GARBAGE: Final = 5000
"""New objects until the next collection: a busy loop makes Python's 700 within a millisecond or two."""


class Runtime:
    """What a service's loop is given. `bus` is connected and everything is provisioned."""

    def __init__(self, name: str, config: ServiceConfig) -> None:
        self.name = name
        self.config = config
        self.metrics = ServiceMetrics(name)
        self.stopping = asyncio.Event()
        self.hurrying = asyncio.Event()
        """Told to stop once more: wait for nobody."""
        self.bus: Bus
        self.service: Service
        self._ready = False
        self._beat = time.monotonic()
        self._http: HttpServer

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[Runtime]:
        """Connected, provisioned and observable for the length of a block."""
        beat = asyncio.create_task(self._heartbeat())
        self.bus = await Bus.connect(self.config.nats_url, f"pitstop-{self.name}", on_state=self._on_state)
        try:
            self._http = HttpServer(
                *address(self.config.http), self.metrics.registry, alive=self._alive, ready=self._is_ready
            )
            try:
                await provision(self.bus, partitions=self.config.partitions, replicas=self.config.replicas)
                self.service = await nats.micro.add_service(
                    self.bus.nc, name=f"pitstop-{self.name}", version=VERSION, description=f"Pitstop {self.name}"
                )
                try:
                    yield self
                finally:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(2):
                            await self.service.stop()
            finally:
                self._http.close()
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            await self.bus.drain()

    def ready(self, **facts: object) -> None:
        """Take work from now on; says so to whoever started the service."""
        self._ready = True
        gc.freeze()  # what is there now stays: no collection needs to look at it again
        self.metrics.ready.set(1)
        if self.config.ready_file:
            line = json.dumps({"service": self.name, "http": self._http.url, "pid": os.getpid(), **facts})
            target = Path(self.config.ready_file)
            temporary = target.with_suffix(".tmp")
            temporary.write_text(line + "\n")
            temporary.rename(target)
        log.info("ready %s", self._http.url)

    def unready(self) -> None:
        """Take no more work."""
        self._ready = False
        self.metrics.ready.set(0)
        self.metrics.draining.set(1)

    def stop(self) -> None:
        """As SIGTERM does: not ready, then the loop ends, within the deadline of its settings."""
        self.unready()
        self.stopping.set()

    def _on_state(self, connected: bool) -> None:
        if connected and not self.metrics.connected._value.get() and hasattr(self, "bus"):
            self.metrics.reconnects.inc()
        self.metrics.connected.set(1 if connected else 0)

    def _is_ready(self) -> str:
        if not self._ready:
            return "draining" if self.stopping.is_set() else "starting"
        return "" if self.bus.nc.is_connected else "NATS is not connected"

    def _alive(self) -> str:
        late = time.monotonic() - self._beat
        return "" if late < _BLOCKED_AFTER else f"the event loop has been blocked for {late:.0f} s"

    async def _heartbeat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_BEAT)
            self._beat = time.monotonic()
            self.metrics.lag.observe(max(0.0, self._beat - before - _BEAT))


def run(name: str, config_type: type[C], main: Callable[[Runtime, C], Awaitable[None]]) -> None:
    """The process of a service. Exits 0 after SIGTERM or SIGINT, 2 on wrong settings, 1 on a failure."""
    try:
        config = load(config_type, os.environ)
    except PitstopError as error:
        print(f"pitstop {name}: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr,
        format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s",
    )  # fmt: skip
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    gc.set_threshold(_GARBAGE)
    allow_descriptors()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_supervised(name, config, main))
    except PitstopError as error:
        log.error("%s", error)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


def allow_descriptors() -> None:
    """As many open files as this process may have. Most systems give 1,024 to begin with, for the sake of programs that
    use select(2); a host holds four for each open shell."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _supervised(name: str, config: C, main: Callable[[Runtime, C], Awaitable[None]]) -> None:
    runtime = Runtime(name, config)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not runtime.stopping.is_set():
            log.info("stopping")
            runtime.stop()
            _end_at_the_latest(config.stops_within)
        else:
            runtime.hurrying.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with runtime.started():
        await main(runtime, config)
    log.info("stopped")


def _end_at_the_latest(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
