"""One relay worker as a child process: started, watched, started again when it dies, stopped when told so."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pitstop_common.backoff import Backoff
from pitstop_common.config import address
from pitstop_relay.config import RelayConfig

log = logging.getLogger(__name__)

_POLL: Final = 0.02
_CONFIG_EXIT: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Worker:
    """Number `number`, with the environment `env`. `ready`: what it said when it was ready, empty while it is not;
    `news` hears of it each time."""

    def __init__(self, number: int, env: Mapping[str, str], news: Callable[[Worker], None]) -> None:
        self.number = number
        self.ready: dict[str, Any] = {}
        self.restarts = 0
        self._env = env
        self._ready_file = Path(env["PITSTOP_READY_FILE"])
        self._news = news
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def keep(self) -> int:
        """Run it until it is told to stop. Returns its last exit status: 0, or 2 when it refused its settings before
        it was ever ready (it says why itself), or 1."""
        backoff, loop, once = Backoff(), asyncio.get_running_loop(), False
        while not self._stopping.is_set():
            born = loop.time()
            code = await self._live()
            once, self.ready = once or bool(self.ready), {}
            if self._stopping.is_set():
                return int(code != 0)
            if code == _CONFIG_EXIT and not once:
                os.kill(os.getpid(), signal.SIGTERM)  # the others have the same settings
                return code
            self.restarts += 1
            delay = backoff.after(loop.time() - born)
            log.warning("worker %d ended (%d); starting it again in %.1f s", self.number, code, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        return 0

    def stop(self, within: float) -> None:
        """Pass a SIGTERM on; kill it when it has not ended in so many seconds."""
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(within, self.kill)
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self._send(signal.SIGKILL)

    async def _live(self) -> int:
        self._ready_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pitstop_relay", stdin=DEVNULL, env=dict(self._env), start_new_session=True,
            preexec_fn=_drain_with_parent,
        )  # fmt: skip
        if self._stopping.is_set():
            self._send(signal.SIGTERM)
        watch = asyncio.create_task(self._await_ready())
        try:
            return await self._process.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _await_ready(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.ready = json.loads(self._ready_file.read_text())
                self._news(self)
                return
            await asyncio.sleep(_POLL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid and self._process is not None:
                self._process.send_signal(number)


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


def _drain_with_parent() -> None:
    """Who started it was killed: it tells its people and ends, as when it is stopped."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
