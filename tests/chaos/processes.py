"""The services of one system as processes that can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.cluster import Cluster, Doors
from tests.chaos.disk import Disk, Server
from tests.chaos.proxy import Deaf, Proxy

from pitstop_common.embedded import die_with_parent

ROOT: Final = Path(__file__).parent.parent.parent
_READY_SECONDS: Final = 40.0
_OWNS = re.compile(r"owns partition 0, epoch (\d+)")


class Kill(NamedTuple):
    """One kill -9: when (monotonic seconds), and of whom. `incarnation`: of a sandbox host."""

    at: float
    pid: int
    incarnation: str


class Service:
    """One service: a process at a time, each with the folder and the log of the one before."""

    def __init__(self, folder: Path, name: str, module: str, **settings: str) -> None:
        self.name = name
        self.kind = name.partition("-")[0]
        self.killed: list[Kill] = []
        self.proxy: Proxy | Doors
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self._module, self._settings = module, settings
        self.folder = folder / name
        self.folder.mkdir()
        self.log = folder / f"{name}.log"

    @property
    def runs(self) -> bool:
        """Has it a process."""
        return self.process is not None

    @property
    def ready(self) -> dict[str, str]:
        """What it said when it was ready; empty before."""
        with contextlib.suppress(OSError, ValueError):
            said: dict[str, str] = json.loads((self.folder / "ready.json").read_text())
            return said
        return {}

    def start(self, token: str) -> None:
        """Does not wait until it is ready."""
        (self.folder / "ready.json").unlink(missing_ok=True)
        env = {
            "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "CHAOS": token,
            "PITSTOP_NATS_URL": self.proxy.url, "PITSTOP_DIR": str(self.folder),
            "PITSTOP_READY_FILE": str(self.folder / "ready.json"),
            **{f"PITSTOP_{name.upper()}": value for name, value in self._settings.items() if name.islower()},
            **{name: value for name, value in self._settings.items() if name.isupper()},
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.folder, preexec_fn=die_with_parent,
            )  # fmt: skip

    async def until_ready(self) -> None:
        """AssertionError, with its log, when it ends instead."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self.ready:
            ended = self.process is None or self.process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"{self.name}: {self.words()}"
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """kill -9."""
        process, self.process = self.process, None
        assert process is not None
        assert process.poll() is None, f"{self.name} ended by itself ({process.returncode}): {self.words()}"
        self.stopped = False
        process.kill()
        await asyncio.to_thread(process.wait)
        self.killed.append(Kill(time.monotonic(), process.pid, self.ready.get("incarnation", "")))

    async def again(self, token: str, **settings: str) -> None:
        """As an operator restarts it, with other settings. Returns when it is ready."""
        status = await self.end()
        assert status == 0, f"{self.name} ended with {status} at SIGTERM: {self.words()}"
        self._settings |= settings
        self.start(token)
        await self.until_ready()

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT."""
        if self.process is not None:
            self.process.send_signal(number)
            self.stopped = number == signal.SIGSTOP

    async def end(self) -> int:
        """SIGTERM; the exit status, which is -9 when that was of no use."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, 35)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def epoch(self) -> int:
        """The newest that this scheduler's log owned."""
        found = _OWNS.findall(self.log.read_text(errors="replace"))
        return int(found[-1]) if found else 0

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


class System:
    """A server and services. `token` marks all their processes, whatever becomes of them."""

    def __init__(self, folder: Path, services: list[Service], *, clustered: bool = False) -> None:
        self.folder = folder
        self.cluster = Cluster(folder) if clustered else None
        self.token = secrets.token_hex(8)
        self.services = services
        self.disk = Disk(folder / "nats" / "jetstream")
        self.server = Server(folder / "nats", self.disk)
        self.deaf = Deaf()
        self.server_kills = 0
        self.down: list[tuple[float, float]] = []
        """When the server was away (seconds since the epoch)."""

    async def start(self) -> None:
        """Everything, one after the other: the first makes the streams."""
        if self.cluster is None:
            await asyncio.to_thread(self.disk.start)
            await self.server.start()
            await self.deaf.listen(self.server.port)
        else:
            await self.cluster.start()
        for service in self.services:
            service.proxy = Doors(self.cluster.ports) if self.cluster else Proxy(self.server.port)
            await service.proxy.start()
            service.start(self.token)
        for service in self.services:
            await service.until_ready()

    async def kill_server(self, seconds: float) -> None:
        """kill -9 of nats-server, and a new one after `seconds`."""
        before = time.time()
        await self.server.stop(signal.SIGKILL)
        self.server_kills += 1
        await asyncio.sleep(seconds)
        self.disk.free()
        await self.server.start()
        self.down.append((before, time.time()))
        await self.deaf.listen(self.server.port)

    async def kill_node(self, number: int, seconds: float) -> None:
        """kill -9 of a server of the cluster, and a new one after `seconds`."""
        assert self.cluster is not None
        before = time.time()
        await self.cluster.kill(number)
        self.server_kills += 1
        await asyncio.sleep(seconds)
        await self.cluster.revive(number)
        self.down.append((before, time.time()))

    async def isolate(self, number: int, seconds: float, *, silently: bool) -> None:
        """Cut a server of the cluster off from everybody for a while."""
        assert self.cluster is not None
        before = time.time()
        doors = [service.proxy for service in self.services if isinstance(service.proxy, Doors)]
        self.cluster.isolate(number, doors, silently=silently)
        await asyncio.sleep(seconds)
        self.cluster.rejoin(number, doors)
        self.down.append((before, time.time()))

    async def stop_node(self, number: int, seconds: float) -> None:
        """SIGSTOP a server of the cluster for a while."""
        assert self.cluster is not None
        before, pid = time.time(), self.cluster.nodes[number].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.down.append((before, time.time()))

    def slow_consumers(self) -> int:
        """How many clients the server has cut off because they did not read."""
        return 0 if self.cluster else self.server.slow_consumers()

    def url(self) -> str:
        """For a client that nothing happens to."""
        return self.cluster.url() if self.cluster else self.server.url()

    @property
    def kills(self) -> int:
        """kill -9, so far."""
        return self.server_kills + sum(len(service.killed) for service in self.services)

    def of(self, kind: str) -> list[Service]:
        """The services of a kind: scheduler, janitor, sandbox."""
        return [service for service in self.services if service.kind == kind]

    def owner(self) -> Service:
        """The scheduler that took the log over last."""
        return max(self.of("scheduler"), key=lambda service: service.epoch())

    async def end(self) -> dict[str, int]:
        """Stop everything as an operator does. The exit status of each service."""
        ended = await asyncio.gather(*(service.end() for service in self.services))
        return dict(zip((service.name for service in self.services), ended, strict=True))

    async def close(self) -> None:
        """Leave nothing, whatever happened."""
        self.deaf.close()
        for service in self.services:
            if service.process is not None:
                service.process.kill()
                service.process.wait()
                service.process = None
            if hasattr(service, "proxy"):
                await service.proxy.close()
        await self.server.stop()
        if self.cluster is not None:
            await self.cluster.close()
        self.disk.close()

    def left(self) -> list[str]:
        """Processes of this system that there are: by the mark in their environment, or by the folder that they have
        open or mounted, as sandboxes and their holders."""
        mark, folder = f"CHAOS={self.token}".encode(), f"{self.folder}/"
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit() or int(entry.name) in (os.getpid(), self.disk.pid):
                    continue
                known = mark in (entry / "environ").read_bytes().split(b"\0")
                files = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
                if known or folder in " ".join([(entry / "mountinfo").read_text(), *files]):
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        return [one for one in found if "nats-server" not in one]
