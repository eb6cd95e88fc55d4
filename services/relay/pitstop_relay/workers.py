"""Several relay workers as one service: a process each, one port for people, one page of metrics.

The kernel spreads connections over the workers (SO_REUSEPORT). This process serves nobody: it holds the port, starts a
worker again when it dies, passes SIGTERM on, and ends when all of them have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from pitstop_common.config import address, load
from pitstop_common.errors import ConfigError, PitstopError
from pitstop_common.http import HttpServer
from pitstop_relay.config import RelayConfig
from pitstop_relay.pages import WorkerPages
from pitstop_relay.worker import Worker, settings

log = logging.getLogger(__name__)

MAX_WORKERS: Final = 64
_KILL_AFTER: Final = 2.0
"""What a worker gets beyond its own deadline, seconds."""


class Workers:
    """All of them, for the length of `serve`."""

    def __init__(self, config: RelayConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._workers: list[Worker] = []
        self._http: HttpServer
        self._stops = 0

    async def serve(self) -> int:
        """Until all have ended. Returns the exit status. Raises ConfigError."""
        host, port = address(self._config.ssh_listen)
        registry = CollectorRegistry()
        registry.register(WorkerPages(lambda: self._workers))
        with held(host, port) as taken:
            for number in range(1, self._config.relay_workers + 1):
                env = settings(self._config, number, taken, self._folder / f"{number}.json")
                self._workers.append(Worker(number, env, self._news))
            self._http = HttpServer(*address(self._config.http), registry, alive=lambda: "", ready=self._is_ready)
            loop = asyncio.get_running_loop()
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, self._stop)
            try:
                return max(await asyncio.gather(*(worker.keep() for worker in self._workers)))
            finally:
                for worker in self._workers:
                    worker.kill()
                self._http.close()

    def _stop(self) -> None:
        self._stops += 1
        log.info("stopping" if self._stops == 1 else "stopping at once")
        for worker in self._workers:
            worker.stop(self._config.stops_within + _KILL_AFTER)

    def _is_ready(self) -> str:
        if self._stops:
            return "draining"
        return "" if any(worker.ready for worker in self._workers) else "starting"

    def _news(self, worker: Worker) -> None:
        log.info("worker %d is ready, pid %d", worker.number, worker.pid)
        if self._config.ready_file and all(each.ready for each in self._workers):
            line = json.dumps({
                "service": "relay", "http": self._http.url, "pid": os.getpid(), "ssh": worker.ready["ssh"],
                "workers": [{"worker": each.number, "pid": each.pid, "http": each.ready["http"],
                             "link": each.ready["link"]} for each in self._workers],
            })  # fmt: skip
            target = Path(self._config.ready_file)
            temporary = target.with_suffix(".tmp")
            temporary.write_text(line + "\n")
            temporary.rename(target)


@contextlib.contextmanager
def held(host: str, port: int) -> Iterator[int]:
    """The port of people, held for the workers by a socket that takes no connections: a free one is found, one that is
    taken is refused, and it stays theirs while none of them listens. Raises ConfigError."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen (PITSTOP_SSH_LISTEN={host}:{port}): {error.strerror}") from None
        yield holder.getsockname()[1]


def supervise() -> None:
    """The process. Exits 0 when all workers ended as they should, 2 on wrong settings, 1 otherwise."""
    try:
        config = load(RelayConfig, os.environ)
        if not 1 <= config.relay_workers <= MAX_WORKERS:
            raise ConfigError(f"PITSTOP_RELAY_WORKERS={config.relay_workers}: should be 1 to {MAX_WORKERS}")
        logging.basicConfig(
            level=config.log_level.upper(), stream=sys.stderr,
            format="%(asctime)s relay %(levelname)s %(name)s: %(message)s",
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="pitstop-relay-") as folder:
            status = asyncio.run(Workers(config, Path(folder)).serve())
    except PitstopError as error:
        print(f"pitstop relay: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    raise SystemExit(status)
