"""One relay worker as a child process: started, watched, started again when it dies, stopped when told so."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from pitstop_common.backoff import Backoff
from pitstop_common.config import address
from pitstop_common.embedded import die_with_parent
from pitstop_common.ready_process import ReadyProcess
from pitstop_relay.config import RelayConfig

log = logging.getLogger(__name__)

_CONFIG_EXIT: Final = 2


class Worker(ReadyProcess):
    """Number `number`, with the environment `env`. `ready`: what it said when it was ready, empty while it is not;
    `news` hears of it each time."""

    def __init__(self, number: int, env: Mapping[str, str], news: Callable[[Worker], None]) -> None:
        super().__init__(Path(env["PITSTOP_READY_FILE"]), lambda: news(self))
        self.number = number
        self.restarts = 0
        self._env = env

    async def keep(self) -> int:
        """Run it until it is told to stop. Returns its last exit status: 0, or 2 when it refused its settings before
        it was ever ready (it says why itself), or 1."""
        backoff, loop, once = Backoff(), asyncio.get_running_loop(), False
        while not self._stopping.is_set():
            born = loop.time()
            code = await self._live(self._start)
            once, self.ready = once or bool(self.ready), {}
            if self._stopping.is_set():
                return int(code != 0)
            if code == _CONFIG_EXIT and not once:
                os.kill(os.getpid(), signal.SIGTERM)  # the others have the same settings
                return code
            self.restarts += 1
            delay = backoff.after(loop.time() - born)
            log.warning("worker %d ended (%d); starting it again in %.1f s", self.number, code, delay)
            await self._wait(delay)
        return 0

    def stop(self, within: float) -> None:
        """Pass a SIGTERM on; kill it when it has not ended in so many seconds."""
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(within, self.kill)
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self.send(signal.SIGKILL)

    async def _start(self) -> Process:
        # When who started it is killed, it tells its people and ends, as when it is stopped.
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pitstop_relay", stdin=DEVNULL, env=dict(self._env), start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGTERM),
        )  # fmt: skip


def settings(
    config: RelayConfig, number: int, port: int, ready_file: Path, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of worker `number` (from 1): the service's own, but for what each has for itself. A link port
    that is fixed counts up from the first worker on. Limits on all connections are shared out."""
    host, _ = address(config.ssh_listen)
    own = {
        "PITSTOP_RELAY_WORKERS": "1",
        "PITSTOP_READY_FILE": str(ready_file),
        "PITSTOP_HTTP": "127.0.0.1:0",
        "PITSTOP_SSH_LISTEN": _where(host, port),
        "PITSTOP_SSH_REUSE_PORT": "true",
        "PITSTOP_LINK_LISTEN": _counted(config.link_listen, number),
        "PITSTOP_SSH_MAX_CONNECTIONS": str(-(-config.ssh_max_connections // config.relay_workers)),
        "PITSTOP_SSH_MAX_LOGINS": str(-(-config.ssh_max_logins // config.relay_workers)),
    }
    if config.link_public:
        own["PITSTOP_LINK_PUBLIC"] = _counted(config.link_public, number)
    return {**environ, **own}


def _counted(where: str, number: int) -> str:
    host, port = address(where)
    return _where(host, port + number - 1 if port else 0)


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
