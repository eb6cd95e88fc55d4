"""A relay and a sandbox host in one process, over real TLS, with processes of this machine in place of a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import uvloop
from prometheus_client import CollectorRegistry
from tests.docker_engine import FULL
from tests.entered_jobs import LocalJob, SandboxJob
from tests.link_tls import client_tls, make_tls

from pitstop_common.errors import Unavailable
from pitstop_common.messages import (
    AccessReply,
    AllowedKey,
    DialReply,
    DialRequest,
    Entrant,
    KnownToken,
    SshDenied,
    WhoReply,
    WhoRequest,
)
from pitstop_common.roles import Services
from pitstop_common.userauth import fingerprint
from pitstop_relay.config import RelayConfig
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.service import Relay, SshAt
from pitstop_sandbox import control
from pitstop_sandbox.backends.docker import container
from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.cables import Cables
from pitstop_sandbox.backends.docker.network import Outward
from pitstop_sandbox.backends.fake import FakeBackend
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import (
    Backend,
    Sandbox,
    SandboxSpec,
)
from pitstop_sandbox.link import SshHost

JOB = "abcdefghijkl-1"
HOST = "host-a"


@dataclass
class Access:
    """`svc.access` and `svc.who`, from tables."""

    replies: dict[str, AccessReply] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False
    known: dict[str, WhoReply] = field(default_factory=dict)
    tokens: dict[str, KnownToken] = field(default_factory=dict)

    async def who(self, request: WhoRequest) -> WhoReply:
        if self.away:
            raise Unavailable("nobody answers on svc.who")
        return self.known.get(request.fingerprint, WhoReply())

    async def access(self, job: str, fingerprint: str = "", *, token: str = "") -> AccessReply:
        self.asked.append(job)
        if self.away:
            raise Unavailable("nobody answers on svc.access")
        reply = self.replies.get(job, AccessReply(found=False))
        return msgspec.structs.replace(reply, owner=self.owners.get(fingerprint, ""), token=self.tokens.get(token))


@dataclass
class World:
    """A relay, a host with one job, and keys in files for the ssh client."""

    relay: Relay
    host: SshHost
    job: LocalJob
    access: Access
    at: SshAt
    folder: Path
    registry: CollectorRegistry
    denied: list[SshDenied]
    dialled: list[DialRequest]

    def ssh_args(self, *options: str, job: str = JOB, key: str = "ada") -> list[str]:
        """A stock client with no settings of this machine."""
        return [
            "ssh", *options, "-F", "none", "-p", str(self.at.port), "-i", str(self.folder / key),
            "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
            "-o", "LogLevel=INFO", f"{job}@127.0.0.1",
        ]  # fmt: skip

    async def ssh(
        self, *command: str, options: Sequence[str] = (), stdin: bytes = b"", job: str = JOB, key: str = "ada"
    ) -> tuple[int, bytes, bytes]:
        """Run the client to its end: exit status, stdout, stderr."""
        client = await asyncio.create_subprocess_exec(
            *self.ssh_args(*options, job=job, key=key), *command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                out, err = await client.communicate(stdin)
        finally:
            if client.returncode is None:
                client.kill()
                await client.wait()
        assert client.returncode is not None
        return client.returncode, out, err

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def make_key(folder: Path, name: str, kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    """A key pair as files for the ssh client."""
    rsa = kind == "ssh-rsa"
    key = asyncssh.generate_private_key(kind, key_size=2048) if rsa else asyncssh.generate_private_key(kind)
    path = folder / name
    path.write_bytes(key.export_private_key())
    path.chmod(0o600)
    path.with_name(f"{name}.pub").write_bytes(key.export_public_key())
    return key


def allowed(user: str, key: asyncssh.SSHKey) -> AllowedKey:
    text = " ".join(key.export_public_key().decode().split()[:2])
    return AllowedKey(user=user, key=text, fingerprint=fingerprint(key.public_data))


@contextlib.asynccontextmanager
async def world(
    folder: Path, *, sandbox: Sandbox | None = None, services: Services | None = None, **settings: object
) -> AsyncIterator[World]:
    """Everything up; at the end everything is gone, which is checked. With `sandbox` the job is in it."""
    before = set(asyncio.all_tasks())
    tls = make_tls(folder / "tls")
    ada = make_key(folder, "ada")
    make_key(folder, "stranger")
    access = Access(
        {JOB: AccessReply(found=True, job=JOB, attempt=1, org="acme", run=JOB[:12], actor="ada", status="paused",
                          host=HOST, offers=True, project="web", allowed=(allowed("ada", ada),),
                          services=services or Services(), people=(Entrant(user="ada"),))}
    )  # fmt: skip
    job = SandboxJob(JOB, folder, sandbox) if sandbox else LocalJob(JOB, folder)
    host = SshHost(
        access,
        lambda name: job if name == JOB else None,
        host=HOST,
        incarnation="1",
        tls=client_tls(tls, "pitstop-host"),
    )
    registry = CollectorRegistry()
    denied: list[SshDenied] = []
    dialled: list[DialRequest] = []

    class Outside:
        async def dial(self, name: str, request: DialRequest) -> DialReply:
            dialled.append(request)
            return await host.dial(request) if name == HOST else DialReply(ok=False, error="no such host")

        async def publish(self, fact: SshDenied) -> None:
            denied.append(fact)

    config = RelayConfig(**{  # type: ignore[arg-type]
        "nats_url": "nats://unused", "dir": folder, "ssh_listen": "127.0.0.1:0", "tls_ca": tls / "ca.pem",
        "tls_cert": tls / "pitstop-relay.pem", "tls_key": tls / "pitstop-relay.key", **settings,
    })  # fmt: skip
    relay = Relay(config, RelayMetrics(registry), access, Outside(), Outside())
    at = await relay.start()
    (folder / "known_hosts").write_text(at.known_hosts + "\n")
    fds = _open_files()
    try:
        yield World(relay, host, job, access, at, folder, registry, denied, dialled)
    finally:
        try:
            await host.aclose("stopped")
        finally:
            await relay.stop()
    assert not relay._server.is_serving(), "a relay that has stopped still listens"
    await _nothing_is_left(before, job, fds)


@contextlib.asynccontextmanager
async def sandboxed(folder: Path, kind: str, **settings: Any) -> AsyncIterator[World]:
    """The same with a real sandbox of that kind of backend."""
    engine = settings.pop("engine", None)
    backend: Backend = FakeBackend() if kind == "fake" else NamespacesBackend()
    if engine is not None:
        backend = DockerBackend(
            host=engine.host, settings=container.Settings(image=FULL), cables=Cables(Outward(root=folder))
        )  # fmt: skip
    (folder / "job").mkdir()
    spec = SandboxSpec(id="job.1", folder=folder / "job")
    sandbox = await backend.create(spec)
    control.install(spec.folder / "bin")
    try:
        async with world(folder, sandbox=sandbox, **settings) as made:
            yield made
    finally:
        await sandbox.remove()
        await backend.aclose()


def in_world(backend: str = "", **settings: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Makes a test of an async function whose first argument is a World. It runs on uvloop, as the services do."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(tmp_path: Path, **others: object) -> None:
            async def main() -> None:
                made_by = functools.partial(sandboxed, kind=backend) if backend else world
                async with made_by(tmp_path, **settings) as made:
                    await test(made, **others)

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())

        others = list(inspect.signature(test).parameters.values())[1:]
        folder = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = inspect.Signature([folder, *others])  # type: ignore[attr-defined]
        del run.__wrapped__
        return run

    return decorate


async def _nothing_is_left(before: set[asyncio.Task[object]], job: LocalJob, fds: int) -> None:
    async with asyncio.timeout(20):
        while left := [task for task in asyncio.all_tasks() - before if not task.done()]:
            await asyncio.wait(left)
        while _open_files() > fds:
            await asyncio.sleep(0)
    opened = [said for said in job.said if said[0] == "opened"]
    closed = [said for said in job.said if said[0] == "closed"]
    assert len(opened) == len(closed)
    for process in job.processes:
        assert process.popen.poll() is not None, "a process outlived its connection"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
