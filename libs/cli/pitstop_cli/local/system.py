"""The whole system as processes of this one: nats-server and the four services, from first start to last stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_cli.commands.token import callout_key
from pitstop_cli.local import credentials, tls
from pitstop_cli.local.child import Child, python
from pitstop_cli.local.ports import Ports
from pitstop_cli.local.settings import Options, environment
from pitstop_cli.paths import write_private
from pitstop_common.backoff import Backoff
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.permissions import OWNER, PUBLISHER, SERVICES

_READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What `pitstop up` tells the world when all is ready: one line of JSON."""

    nats: str
    ssh: dict[str, Any]
    metrics: dict[str, str]
    sandboxes: str = ""
    """What jobs run in, and why."""


class LocalSystem:
    """Made in a folder that the caller has locked. `say` is for people."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._dir = options.dir
        self._run_dir = self._dir / "run"
        self._ports = Ports(self._dir / "ports.json", say)
        self._nats: EmbeddedServer
        self._nats_watch: asyncio.Task[None] | None = None
        self._children: dict[str, Child] = {}
        self._complete = False

    async def start(self) -> Facts:
        """Returns when everything is ready. Raises Failure or PitstopError; call `stop` then, too."""
        for folder in (self._run_dir, self._dir / "logs", *(self._dir / name for name in SERVICES)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tls.ensure(self._dir / "tls")
        credentials.ensure_secrets_key(self._dir)
        nats_port = self._ports.choose("nats", self._options.nats_port, "--nats-port")
        ssh_port = self._ports.choose("ssh", self._options.ssh_port, "--ssh-port")
        http_ports = {name: self._ports.choose(f"http.{name}", None) for name in SERVICES}
        self._ports.remember(nats=nats_port, ssh=ssh_port)
        self._nats = EmbeddedServer(
            self._dir / "nats",
            port=nats_port,
            accounts=credentials.accounts(self._dir, self._options.org),
            callout=callout_key(self._dir / "callout.key"),
        )
        await self._nats.start()
        self._nats_watch = asyncio.create_task(self._watch_nats())
        await self._provision()
        for name in SERVICES:
            self._children[name] = self._child(name, ssh_port, http_ports[name])
            self._children[name].start()
        await self._all_ready()
        self._complete = True
        self._ports.remember(**{f"http.{name}": http_ports[name] for name in SERVICES})
        self._write_client()
        return self.facts()

    def facts(self) -> Facts:
        """Where everything is now."""
        ready = {name: child.ready for name, child in self._children.items()}
        return Facts(
            nats=self._nats.url(OWNER), ssh=ready["relay"]["ssh"],
            metrics={name: f"{line['http']}/metrics" for name, line in ready.items()},
            sandboxes=ready["sandbox"].get("sandboxes", ""),
        )  # fmt: skip

    async def stop(self) -> None:
        """Drain: jobs end first, then the services, then NATS. Says what it waits for."""
        for names, words in ((("sandbox",), "running jobs to end"), (("scheduler", "relay", "janitor"), "")):
            running = [self._children[name] for name in names if name in self._children]
            if words and any(child.pid for child in running):
                self._say(f"stopping: waiting for {words} (Ctrl-C again stops at once)")
            await asyncio.gather(*(child.stop() for child in running))
        await self._stop_nats(signal.SIGTERM)
        await self.sweep()
        self._clean()

    async def abort(self) -> None:
        """Kill everything that is left, then what the jobs left behind."""
        for child in self._children.values():
            child.send(signal.SIGKILL)
        await asyncio.gather(*(child.stop(signal.SIGKILL) for child in self._children.values()))
        await self._stop_nats(signal.SIGKILL)
        await self.sweep()
        self._clean()

    async def sweep(self) -> None:
        """End the holders of jobs: they outlive the sandbox service on purpose, and it may have died without them."""
        if not (self._dir / "sandbox" / "jobs").exists():
            return
        process = await asyncio.create_subprocess_exec(
            *python("pitstop_sandbox.holder"), "sweep", str(self._dir / "sandbox" / "jobs"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            env=environment("sandbox", self._options, nats_url="", ssh_port=0, http_port=0, ready_file=Path()),
        )  # fmt: skip
        await process.wait()

    # -- parts -------------------------------------------------------------------------------------------------------

    def _child(self, name: str, ssh_port: int, http_port: int) -> Child:
        ready_file = self._run_dir / f"{name}.json"

        def env() -> dict[str, str]:
            return environment(name, self._options, nats_url=self._nats.url(name), ssh_port=ssh_port,
                               http_port=http_port, ready_file=ready_file)  # fmt: skip

        return Child(
            name, python(f"pitstop_{name}"), env, log=self._dir / "logs" / f"{name}.log", ready_file=ready_file,
            say=self._say, changed=self._changed,
        )  # fmt: skip

    async def _provision(self) -> None:
        """As the scheduler's user: the others may not make streams."""
        from pitstop_common.bus import connected
        from pitstop_common.provision import provision

        async with connected(self._nats.url("scheduler"), "pitstop-up") as bus:
            await provision(bus)

    async def _all_ready(self) -> None:
        waits = {asyncio.create_task(child.first_ready()): name for name, child in self._children.items()}
        try:
            done, late = await asyncio.wait(waits, timeout=_READY_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
        if late:
            names = ", ".join(sorted(waits[task] for task in late))
            raise Unavailable(f"not ready after {_READY_SECONDS:.0f} s: {names}. Their logs are in {self._dir}/logs")

    def _changed(self, name: str) -> None:
        """A service is ready, for the first time or again."""
        if name == "relay":
            line = self._children[name].ready["ssh"]["known_hosts"]
            write_private(self._dir / "known_hosts", line.rstrip("\n") + "\n")
        if self._complete:
            self._say(f"… {name} is ready again")
            self._write_client()

    def _write_client(self) -> None:
        facts = msgspec.to_builtins(self.facts())
        client = {**facts, "org": self._options.org, "actor": self._options.owner, "local": True, "pid": os.getpid()}
        write_private(self._dir / "client.json", msgspec.json.encode(client).decode() + "\n")
        publisher = {"nats": self._nats.url(PUBLISHER), "org": self._options.org, "inbox_prefix": "_INBOX_publisher"}
        write_private(self._dir / "publisher.json", msgspec.json.encode(publisher).decode() + "\n")

    async def _watch_nats(self) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        born = loop.time()
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            code = self._nats.ended()
            if code is None:
                continue
            delay = backoff.after(loop.time() - born)
            self._say(f"nats-server ended ({code}); starting it again in {delay:.1f} s. Log: {self._dir}/nats/nats.log")
            await asyncio.sleep(delay)
            born = loop.time()
            try:
                await self._nats.start()
                self._say("… nats-server runs again")
            except PitstopError as error:
                self._say(str(error))

    async def _stop_nats(self, number: int) -> None:
        if self._nats_watch is not None:
            self._nats_watch.cancel()
            await asyncio.gather(self._nats_watch, return_exceptions=True)
        if hasattr(self, "_nats"):
            await self._nats.stop(number)

    def _clean(self) -> None:
        """Run-time files go; state, credentials and logs stay."""
        for file in (self._dir / "client.json", self._dir / "publisher.json", *self._run_dir.glob("*")):
            file.unlink(missing_ok=True)
        for file in (self._dir / "nats").glob("*.ports"):
            file.unlink(missing_ok=True)
