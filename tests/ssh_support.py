"""A relay and a sandbox host in one process, over real TLS, with processes of this machine in place of a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import functools
import inspect
import os
import pty
import socket
import ssl
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import msgspec
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from tests.patience import PATIENCE

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
from pitstop_sandbox.backends.fake import FakeBackend
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import (
    Backend,
    BackendError,
    Exit,
    Listener,
    Process,
    Sandbox,
    SandboxSpec,
    Spawn,
    Tcp,
    Unix,
)
from pitstop_sandbox.backends.sockets import SocketListener
from pitstop_sandbox.channels.screen import Recorder
from pitstop_sandbox.channels.shells import Line, Shell
from pitstop_sandbox.holder import modes
from pitstop_sandbox.link import SshHost
from pitstop_sandbox.ports import Entry, Pty, Session, Use

JOB = "abcdefghijkl-1"
HOST = "host-a"
SHELL = "/bin/bash"


class LocalProcess:
    """A process of this machine with the face of a sandbox's."""

    def __init__(self, popen: subprocess.Popen[bytes], fds: tuple[int, ...]) -> None:
        self.popen = popen
        self.id = str(popen.pid)
        self.fds = fds
        self.spool: Path | None = None
        self.scrollback: Path | None = None
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self.popen.wait()
        self._exit.set_result(Exit(128 - code, -code) if code < 0 else Exit(code))

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def grown(self, beyond: int) -> int:
        raise NotImplementedError

    async def signal(self, number: int, *, tree: bool = False) -> int:
        with contextlib.suppress(ProcessLookupError):
            if tree:
                os.killpg(self.popen.pid, number)
            elif self.popen.poll() is None:
                self.popen.send_signal(number)
        return 0

    async def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fds[0], termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@dataclass
class LocalJob:
    """Implements SessionHost, and remembers what it was told."""

    job: str
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"], "STEP": "two words"})
    notice: str = "step 3 failed: exit code 7"
    said: list[tuple[str, ...]] = field(default_factory=list)
    processes: list[LocalProcess] = field(default_factory=list)
    keys: int = 0
    outputs: int = 0
    bytes: int = 0
    spawn_error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _say(self, *words: str) -> None:
        self.said.append(words)
        self.changed.set()

    async def opened(self, session: Session) -> None:
        self._say("opened", session.user, session.fingerprint)

    def record(self, session: Session, process: Process, shell: Shell | None, title: str,
               size: tuple[int, int]) -> Recorder | None:  # fmt: skip
        return None

    def unrecord(self, process: str) -> None:
        raise AssertionError("nothing is recorded")

    async def closed(self, session: Session, reason: str) -> None:
        self._say("closed", session.user, reason)

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        return Entry(env=self.env, cwd=str(self.cwd), shell=SHELL, umask=0o027, notice=self.notice)

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        if self.spawn_error:
            raise BackendError("spawn_failed", self.spawn_error)
        whole = {**entry.env, **env}
        process = _in_terminal(argv, entry, whole, pty) if pty else _on_pipes(argv, entry, whole)
        self.processes.append(process)
        return process

    async def dial(self, to: Tcp | Unix) -> int:
        try:
            if isinstance(to, Tcp):
                return socket.create_connection((to.host, to.port), timeout=10).detach()
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(to.path)
            return sock.detach()
        except OSError as error:
            raise BackendError("unreachable", error.strerror or str(error)) from None

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        sock = socket.socket(socket.AF_INET if isinstance(at, Tcp) else socket.AF_UNIX)
        if folder and isinstance(at, Unix):
            Path(at.path).parent.mkdir()
        try:
            sock.bind(("127.0.0.1", at.port) if isinstance(at, Tcp) else at.path)
        except OSError as error:
            sock.close()
            raise BackendError("unreachable", error.strerror or str(error)) from None
        sock.listen()
        port = sock.getsockname()[1] if isinstance(at, Tcp) else 0

        async def removed() -> None:
            if isinstance(at, Unix):
                Path(at.path).unlink()
                if folder:
                    Path(at.path).parent.rmdir()

        return SocketListener(port, [sock.detach()], removed)

    def used(self, session: Session, use: Use) -> None:
        self._say("used", use.kind, use.what)

    def moved(self, size: int) -> None:
        self.bytes += size

    def shell_started(self, session: Session, process: Process, line: Line) -> Shell | None:
        self._say("shell_started")
        return None

    async def take_shell(self, session: Session, line: Line) -> Shell | None:
        return None

    def shell_left(self, shell: Shell) -> None:
        raise AssertionError("there are none")

    async def shell_ended(self, session: Session, process: object, *, by_itself: bool) -> None:
        self._say("shell_ended", "by itself" if by_itself else "cut")

    def key(self) -> None:
        self.keys += 1

    def output(self) -> None:
        self.outputs += 1

    async def until(self, *words: str) -> None:
        """Until it was told so."""
        async with asyncio.timeout(PATIENCE):
            while not any(said[: len(words)] == words for said in self.said):
                self.changed.clear()
                await self.changed.wait()


class SandboxJob(LocalJob):
    """The same in a sandbox."""

    def __init__(self, job: str, folder: Path, sandbox: Sandbox) -> None:
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STEP": "two words", "HOME": "/home/runner"}
        super().__init__(job, folder, env=env)
        self.sandbox = sandbox
        self.inside: list[Process] = []

    async def entry(self, session: Session, *, interactive: bool) -> Entry:
        return Entry(env=self.env, cwd="/home/runner/work", shell=SHELL, umask=0o022, notice=self.notice)

    async def spawn(self, session: Session, argv: Sequence[str], entry: Entry, *, pty: Pty | None,
                    env: Mapping[str, str]) -> Process:  # fmt: skip
        terminal = pty or Pty()
        request = Spawn(id=f"ssh-{len(self.inside)}", argv=argv, env={**entry.env, **env}, cwd=entry.cwd,
                        mode="pty" if pty else "pipes", columns=terminal.columns, rows=terminal.rows,
                        modes=terminal.modes, umask=entry.umask)  # fmt: skip
        process = await self.sandbox.spawn(request)
        self.inside.append(process)
        return process

    async def dial(self, to: Tcp | Unix) -> int:
        return await self.sandbox.dial(to)

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> Listener:
        return await self.sandbox.listen(at, folder=folder)


def _on_pipes(argv: Sequence[str], entry: Entry, env: Mapping[str, str]) -> LocalProcess:
    ends = [os.pipe() for _ in range(3)]
    popen = subprocess.Popen(
        argv, stdin=ends[0][0], stdout=ends[1][1], stderr=ends[2][1], env=dict(env), cwd=entry.cwd,
        umask=entry.umask, start_new_session=True,
    )  # fmt: skip
    for fd in (ends[0][0], ends[1][1], ends[2][1]):
        os.close(fd)
    return LocalProcess(popen, (ends[0][1], ends[1][0], ends[2][0]))


def _in_terminal(argv: Sequence[str], entry: Entry, env: Mapping[str, str], wanted: Pty) -> LocalProcess:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", wanted.rows, wanted.columns, 0, 0))
    modes.apply(slave, wanted.modes)
    popen = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=dict(env), cwd=entry.cwd, umask=entry.umask,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    return LocalProcess(popen, (master,))


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
    backend: Backend = FakeBackend() if kind == "fake" else NamespacesBackend()
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


def make_tls(folder: Path) -> Path:
    """A private authority and a certificate for each side of a link, as `pitstop up` makes them."""
    folder.mkdir()
    root = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pitstop test")])
    _write(folder, "ca", root, _certificate(issuer, issuer, root, root, None))
    for name in ("pitstop-relay", "pitstop-host", "somebody"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        _write(folder, name, key, _certificate(subject, issuer, key, root, name))
    return folder


def client_tls(folder: Path, name: str) -> ssl.SSLContext:
    """What a host dials with."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey,
    name: str | None,
) -> x509.Certificate:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name is None, path_length=None), critical=True)
    )  # fmt: skip
    if name is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class Screen:
    """The ssh client in a terminal of its own, as a person has it."""

    def __init__(self, args: Sequence[str], columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        self.size(columns, rows)
        self.client = subprocess.Popen(
            args, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self._master, False)
        self.text = b""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.text += data
        self._changed.set()

    def size(self, columns: int, rows: int) -> None:
        """Make the window so large."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> str:
        """Until the screen shows a text. Returns what came before it, which is forgotten."""
        try:
            async with asyncio.timeout(PATIENCE):
                while text.encode() not in self.text:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on the screen: {self.text.decode(errors='replace')}") from None
        before, _, self.text = self.text.partition(text.encode())
        return before.decode(errors="replace")

    async def cut(self) -> None:
        """The client dies, as with its machine."""
        self.client.kill()
        await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().run_in_executor(None, self.client.wait)

    def close(self) -> None:
        if self.client.poll() is None:
            self.client.kill()
            self.client.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@contextlib.contextmanager
def screen(
    made: World, *command: str, options: Sequence[str] = (), columns: int = 80, rows: int = 24
) -> Iterator[Screen]:
    """A person's terminal with ssh in it, for the length of a block."""
    shown = Screen([*made.ssh_args(*options), *command], columns, rows)
    try:
        yield shown
    finally:
        shown.close()
