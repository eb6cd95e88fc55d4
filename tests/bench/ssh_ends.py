"""The two ends to compare: OpenSSH's sshd on loopback, and a paused job. One client, one key exchange, one cipher."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.bench.whole import Requests
from tests.whole_system import free_port

from pitstop_common.bus import connected
from pitstop_common.embedded import die_with_parent
from pitstop_common.messages import JobFinished, JobPaused

KEX = "curve25519-sha256"
CIPHER = "aes128-gcm@openssh.com"
_START_SECONDS = 10


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect. `key` and `known_hosts` are files."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    pid: int = 0
    """Of the server, where it is one process."""

    def command(self, *words: str, tty: bool = False, bind: str = "") -> list[str]:
        """A stock client with no settings of this machine."""
        return [
            "ssh", *(["-tt"] if tty else []), *(["-b", bind] if bind else []), "-F", "none", "-i", str(self.key),
            "-p", str(self.port), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "GlobalKnownHostsFile=none",
            "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", f"KexAlgorithms={KEX}",
            "-o", f"Ciphers={CIPHER}", "-o", "LogLevel=ERROR",
            # Newer clients send keys at a fixed rate to hide their rhythm: that would be what is measured.
            "-o", "IgnoreUnknown=ObscureKeystrokeTiming", "-o", "ObscureKeystrokeTiming=no",
            f"{self.user}@{self.host}", *words,
        ]  # fmt: skip


def make_key(path: Path) -> Path:
    """An ed25519 key pair in files."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path], check=True)
    return path


@contextlib.asynccontextmanager
async def paused_job(system: dict[str, Any], folder: Path) -> AsyncIterator[End]:
    """A job that waits for its person, for the length of a block."""
    async with paused_jobs(system, folder, 1) as (job,):
        yield job


@contextlib.asynccontextmanager
async def paused_jobs(system: dict[str, Any], folder: Path, count: int) -> AsyncIterator[list[End]]:
    """Jobs that wait for their person, for the length of a block."""
    key, known_hosts = make_key(folder / "person"), folder / "known_hosts"
    session = {"pause": "at_end", "keys": [key.with_suffix(".pub").read_text().strip()],
               "connect_window": 3600, "idle_timeout": 3600, "max_duration": 7200}  # fmt: skip
    jobs = []
    async with connected(system["nats"], "bench") as bus:
        requests = Requests(bus)
        try:
            for _ in range(count):
                request = await requests.publish("true", ssh=session)
                fact = await requests.until(request, lambda fact: isinstance(fact, JobPaused | JobFinished))
                assert isinstance(fact, JobPaused) and fact.ssh is not None, fact
                known_hosts.write_text(fact.ssh.known_hosts + "\n")
                jobs.append(
                    End(host=fact.ssh.host, port=fact.ssh.port, user=fact.ssh.user, key=key, known_hosts=known_hosts)
                )
        finally:
            await requests.close()
    yield jobs


@contextlib.contextmanager
def openssh(folder: Path, inside: Sequence[str] = ()) -> Iterator[End]:
    """A server with settings of its own on a port of its own, for the length of a block. `inside`: a command that runs
    it somewhere else."""
    folder.mkdir(mode=0o700)
    host_key, key, port = make_key(folder / "host"), make_key(folder / "person"), free_port()
    config = folder / "sshd_config"
    config.write_text("\n".join([
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {host_key}", "PidFile none", "UsePAM no",
        f"AuthorizedKeysFile {key}.pub", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin yes",
        f"KexAlgorithms {KEX}", f"Ciphers {CIPHER}", "UseDNS no", "PrintMotd no", "PrintLastLog no",
        # Under sshd bash reads ~/.bashrc also for a command, which may take longer than all else: a sandbox has none.
        f"SetEnv SHLVL=1 HOME={folder}", "MaxStartups 1000:1:1000",
    ]) + "\n")  # fmt: skip
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {Path(f'{host_key}.pub').read_text()}")
    log = folder / "log"
    with _privilege_folder():
        with log.open("wb") as errors:
            server = subprocess.Popen(
                [*inside, _sshd(), "-D", "-e", "-f", config], stderr=errors, stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            _until_it_listens(server, port, log)
            yield End(host="127.0.0.1", port=port, user=getpass.getuser(), key=key, known_hosts=known_hosts,
                      pid=server.pid)  # fmt: skip
        finally:
            server.terminate()
            server.wait(10)


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("sshd is missing: apt-get install openssh-server")
    return found


@contextlib.contextmanager
def _privilege_folder() -> Iterator[None]:
    """The empty folder that sshd wants when root starts it; a system's own start script would make it."""
    folder = Path("/run/sshd")
    made = os.geteuid() == 0 and not folder.exists()
    if made:
        folder.mkdir(mode=0o755)
    try:
        yield
    finally:
        if made:
            folder.rmdir()


def _until_it_listens(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
