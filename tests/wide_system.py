"""The system on several machines: NATS, scheduler, relay and janitor on one, sandbox hosts on others, and a person's.

Each machine is a network namespace (`tests.netns`). Hosts know two addresses, that of NATS and, when asked to dial,
that of the relay; nothing dials them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.link_tls import make_tls
from tests.netns import WALL, Machine, Networks
from tests.patience import PATIENCE
from tests.ssh_support import make_key

from pitstop_common import subjects
from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import Account, EmbeddedServer, die_with_parent
from pitstop_common.permissions import OWNER, SERVICES, rights
from pitstop_common.provision import provision

HUB: Final = "10.77.0.1"
SSH_PORT: Final = 2222
LINK_PORT: Final = 7000
HTTP_PORT: Final = 9100
HOSTS: Final = {"plain": "10.77.0.11", "walled": "10.77.0.12", "natted": "192.168.50.2", "far": "10.77.0.14"}
"""Sandbox hosts, each in a pool of its name: nothing special, behind a firewall, behind a NAT, one that gets lost."""


class _Server(EmbeddedServer):
    """On all addresses of its machine."""

    def _config(self) -> str:
        return super()._config().replace("listen: 127.0.0.1:", "listen: 0.0.0.0:")


class Wide:
    """The running system. Everything here runs on the hub, but for what is said to run elsewhere."""

    def __init__(self, networks: Networks, folder: Path) -> None:
        self.networks, self.folder = networks, folder
        self.hub, self.person = networks.machine("hub"), networks.machine("person")
        self.hosts: dict[str, Machine] = {}
        self.bus: Bus
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        self._server: EmbeddedServer
        networks.plug(self.hub, "hub", f"{HUB}/24")
        networks.plug(self.person, "person", "10.77.0.2/24")
        for name, address in HOSTS.items():
            self.hosts[name] = networks.machine(name)
            if name == "natted":
                router = networks.machine("router")
                networks.plug(router, "router", "10.77.0.13/24")
                networks.behind(router, self.hosts[name], "192.168.50.1/24", f"{address}/24")
            else:
                networks.plug(self.hosts[name], name, f"{address}/24")
        self.hosts["walled"].run("nft", "-f", "-", stdin=WALL)
        make_tls(folder / "tls")
        make_key(folder, "ada")

    @contextlib.asynccontextmanager
    async def running(self, janitor: dict[str, str], hosts: dict[str, dict[str, str]]) -> AsyncIterator[None]:
        """For the length of a block. `janitor` and `hosts`: settings of theirs."""
        accounts = [Account(user=name, password="p", publish=held.publish, subscribe=held.subscribe)
                    for name, held in ((name, rights(name)) for name in (*SERVICES, OWNER))]  # fmt: skip
        self._server = _Server(self.folder / "nats", port=4222, accounts=accounts)
        await self._server.start()
        try:
            async with connected(self._server.url("scheduler"), "test") as bus:
                await provision(bus)
            self._start("scheduler", self.hub, admins="*/ada")
            self._start("janitor", self.hub, **janitor)
            self._start("relay", self.hub, ssh_listen=f"{HUB}:{SSH_PORT}", link_listen=f"0.0.0.0:{LINK_PORT}",
                        link_public=f"{HUB}:{LINK_PORT}", **self._tls("pitstop-relay"))  # fmt: skip
            for name, settings in hosts.items():
                self._start("sandbox", self.hosts[name], host_id=name, pool=name, capacity="2", sandbox="namespaces",
                            jobs_at_stop="end", http=f"0.0.0.0:{HTTP_PORT}", ssh_public=f"{HUB}:{SSH_PORT}",
                            ssh_known_hosts=str(self.folder / "known_hosts"), labels="wide",
                            **self._tls("pitstop-host"), **settings)  # fmt: skip
            ready = await self._ready("relay")
            (self.folder / "known_hosts").write_text(ready["ssh"]["known_hosts"] + "\n")
            await asyncio.gather(*(self._ready(name) for name in ("scheduler", "janitor", *hosts)))
            async with connected(self._server.url(OWNER), "test") as self.bus:
                yield
        finally:
            await self._stop()
            await self._server.stop()

    # -- a person ----------------------------------------------------------------------------------------------------

    def ssh(self, job: str, *options: str, program: str = "ssh") -> list[str]:
        """A stock client on the person's machine, with no settings of this one."""
        port = "-P" if program == "sftp" else "-p"
        return self.person.enter(
            program, *options, "-F", "none", port, str(SSH_PORT), "-i", str(self.folder / "ada"),
            "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "GlobalKnownHostsFile=none",
            "-o", "BatchMode=yes", f"{job}@{HUB}",
        )  # fmt: skip

    async def does(self, command: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
        """Run a command to its end: exit status, stdout, stderr."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    async def ask(self, verb: str, **body: Any) -> Any:
        """The API's answer to the owner."""
        msg = await self.bus.request(subjects.api("acme", "ada", verb), json.dumps(body).encode(), timeout=6)
        assert "Nats-Service-Error-Code" not in (msg.headers or {}), msg.data
        return json.loads(msg.data)

    async def job(self, run: str) -> dict[str, Any]:
        """The only job of a run, as its status has it."""
        found: dict[str, Any] = (await self.ask("status", run=run))["jobs"][0]["job"]
        return found

    async def host(self, name: str) -> dict[str, Any]:
        """A host, as `pitstop hosts ls` shows it."""
        hosts = (await self.ask("hosts-ls"))["hosts"]
        found: dict[str, Any] = next(one for one in hosts if one["host"] == name)
        return found

    # -- services ----------------------------------------------------------------------------------------------------

    def _tls(self, end: str) -> dict[str, str]:
        tls = self.folder / "tls"
        return {"tls_ca": str(tls / "ca.pem"), "tls_cert": str(tls / f"{end}.pem"), "tls_key": str(tls / f"{end}.key")}

    def _start(self, service: str, machine: Machine, **settings: str) -> None:
        name = settings.get("host_id", service)
        (self.folder / name).mkdir()
        env = {
            "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": f"nats://{service}:p@{HUB}:4222",
            "PITSTOP_DIR": str(self.folder / name), "PITSTOP_READY_FILE": str(self.folder / f"{name}.ready"),
            **{f"PITSTOP_{key.upper()}": value for key, value in settings.items()},
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("wb") as log:
            self._services[name] = subprocess.Popen(
                machine.enter(sys.executable, "-m", f"pitstop_{service}"), env=env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
            )  # fmt: skip

    async def _ready(self, name: str) -> dict[str, Any]:
        file = self.folder / f"{name}.ready"
        async with asyncio.timeout(PATIENCE):
            while not file.exists():
                assert self._services[name].poll() is None, self.words(name)
                await asyncio.sleep(0.02)
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def words(self, name: str) -> str:
        """The log of a service."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def _stop(self) -> None:
        """Hosts first: they say how their jobs end."""
        services, self._services = self._services, {}
        hosts = [process for name, process in services.items() if name in HOSTS]
        others = [process for name, process in services.items() if name not in HOSTS]
        for group in (hosts, others):
            for process in group:
                process.send_signal(signal.SIGTERM)
            for process in group:
                try:
                    await asyncio.to_thread(process.wait, 40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    await asyncio.to_thread(process.wait)
