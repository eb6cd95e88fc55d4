"""The life of `pitstop up`: lock, start, tell, wait, drain; at once when asked twice."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shlex
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_cli.console import out
from pitstop_cli.exits import OK, RUN_FAILED, Failure
from pitstop_cli.local.settings import Options
from pitstop_cli.local.system import Facts, LocalSystem
from pitstop_common.errors import PitstopError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def up(options: Options, *, as_json: bool, say: Callable[[str], None]) -> int:
    """Run until told to stop. Raises Failure when it cannot start."""
    began = time.monotonic()
    with _locked(options.dir):
        system = LocalSystem(options, say)
        asked = Asked()
        try:
            facts = await asked.unless_stopped(system.start())
            if facts is not None:
                if as_json:
                    out(msgspec.json.encode(facts).decode())
                else:
                    say(banner(options, facts, time.monotonic() - began))
                await asked.stop.wait()
        except (PitstopError, OSError) as error:
            raise Failure(str(error), next="`pitstop doctor` looks for the cause", code=RUN_FAILED) from None
        finally:
            await _end(system, asked, say)
    say("stopped")
    return OK


class Asked:
    """Signals, counted: the first sets `stop`, the second `hurry`."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._heard)

    def _heard(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()

    async def unless_stopped(self, start: Coroutine[Any, Any, Facts]) -> Facts | None:
        """The result of the start; None when it was stopped before its end."""
        starting = asyncio.create_task(start)
        stop = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
            return starting.result() if starting.done() else None
        finally:
            starting.cancel()
            stop.cancel()
            await asyncio.wait({starting, stop})


async def _end(system: LocalSystem, asked: Asked, say: Callable[[str], None]) -> None:
    draining = asyncio.ensure_future(system.stop())
    hurry = asyncio.ensure_future(asked.hurry.wait())
    await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if draining.done():
        draining.result()
        return
    say("stopping at once")
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    await system.abort()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder is ours, private to us; raises Failure when another `up` has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"cannot use the folder {folder}: {error.strerror}", next="name another: --dir DIR") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 100, 0).decode(errors="replace").strip() or "pid unknown"
            raise Failure(
                f"pitstop already runs in {folder} ({holder})",
                next="use it as it is, stop it with Ctrl-C there, or start another: pitstop up --dir OTHER",
                code=RUN_FAILED,
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode(), 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def banner(options: Options, facts: Facts, seconds: float) -> str:
    """What runs where, and the next commands."""
    default = options.dir == _default_dir()
    setting = "" if default else f"export PITSTOP_DIR={shlex.quote(str(options.dir))}\n  "
    port = facts.ssh["port"]
    metrics = "\n".join(f"    {name:<10} {url}" for name, url in sorted(facts.metrics.items()))
    return f"""Pitstop is ready ({seconds:.1f} s). Ctrl-C stops it.

  ssh          {facts.ssh["host"]} port {port}
  nats         {facts.nats.rpartition("@")[2]}   (the URL with its credential is in {options.dir}/client.json)
  slots        {options.slots}
  sandboxes    {facts.sandboxes}
  logs         {options.dir}/logs
  metrics
{metrics}

In another terminal:
  {setting}pitstop keys add ~/.ssh/id_ed25519.pub    # once: the key that lets you in
  cd your-checkout && pitstop run --ssh-on-failure
"""


def _default_dir() -> Path:
    from pitstop_cli.paths import state_dir

    return state_dir({name: value for name, value in os.environ.items() if name != "PITSTOP_DIR"})
