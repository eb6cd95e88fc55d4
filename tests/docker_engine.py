"""A Docker Engine of the tests' own: its socket, its data, its containers, and nothing of it left at the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.patience import PATIENCE
from tools import debian_image

from pitstop_common.embedded import die_with_parent

FULL: Final = "pitstop-test/full:latest"
"""A small Debian with sudo, git and an sftp-server."""
BARE: Final = "pitstop-test/bare:latest"
"""A shell and few programs: no bash, no sudo, no user of its own."""
IMAGE_ENV: Final = {"PATH": debian_image.PATH, "FROM_IMAGE": "yes", "LANG": "C.UTF-8"}
FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")
PROGRAMS: Final = ("/bin/sh", "/bin/cat", "/bin/ls", "/usr/bin/env", "/usr/bin/id", "/bin/sleep", "/bin/stty")


class DockerEngine:
    """A dockerd. `host`: as DOCKER_HOST names it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.host = f"unix://{folder / 's'}"
        self._command = [
            "dockerd", "--host", f"unix://{folder}/s", "--data-root", f"{folder}/d", "--exec-root", f"{folder}/e",
            "--pidfile", f"{folder}/pid", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
            "--shutdown-timeout", "5", "--add-runtime", "other=/bin/true", *options,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes]

    def begin(self) -> str:
        """Start it (again). From the main thread: it ends with the thread that started it. Empty when it answers;
        else the end of its log."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
            )
        return _wait(self)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Signal it, and wait until it is gone, with its containerd. A next one would take that for alive, by its
        pid, as long as nobody has reaped it."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while _containerd(self) and time.monotonic() < deadline:
            time.sleep(0.01)
        (self.folder / "e/containerd/containerd.pid").unlink(missing_ok=True)

    def containers(self) -> list[str]:
        """The ids of all there are."""
        return [each["Id"] for each in json.loads(self.get("/containers/json?all=1")[1])]

    def make(self, name: str, labels: dict[str, str]) -> str:
        """Somebody else's container, which runs: its id."""
        body = {"Image": BARE, "Cmd": ["/bin/sleep", "600"], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
        made = json.loads(self._ask("POST", f"/containers/create?name={name}", body)[1])["Id"]
        self._ask("POST", f"/containers/{made}/start")
        return str(made)

    def get(self, path: str) -> tuple[int, bytes]:
        """A question to its API."""
        return self._ask("GET", path)

    def remove(self, path: str) -> int:
        """DELETE."""
        return self._ask("DELETE", path)[0]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.folder / "s"))
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@contextlib.contextmanager
def running_engine(*options: str) -> Iterator[DockerEngine]:
    """A dockerd for the length of a block. Skips the test where none can run."""
    if missing := _missing():
        pytest.skip(f"docker: {missing}")
    # Short: the paths of its sockets, and of those that containerd makes, have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pd-", dir="/tmp"))
    engine = DockerEngine(folder, *options)
    forwarded = FORWARD.read_text()
    FORWARD.write_text("1")  # as an engine does that has networks
    try:
        if fault := engine.begin():
            pytest.skip(f"docker: dockerd does not start here: {fault}")
        yield engine
    finally:
        _end(engine)
        FORWARD.write_text(forwarded)


def _missing() -> str:
    if os.geteuid() != 0:
        return "dockerd needs root"
    return ", ".join(
        f"{name} is not installed" for name in ("dockerd", "runc", "debootstrap") if not shutil.which(name)
    )


def _wait(engine: DockerEngine) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and engine.process.poll() is None:
        with contextlib.suppress(OSError):
            if engine.get("/_ping")[0] == http.client.OK:
                return ""
        time.sleep(0.05)
    return (engine.folder / "log").read_text(errors="replace")[-500:]


def _end(engine: DockerEngine) -> None:
    """Ends dockerd, which ends its containers and its containerd; then all that is left by pid, and the data."""
    children = _containerd(engine)
    if engine.process.poll() is None:
        engine.process.terminate()
        try:
            engine.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            engine.process.kill()
            engine.process.wait()
    for pid in [*children, *_shims(engine)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if (place := line.split()[1]).startswith(f"{engine.folder}/"):
            subprocess.run(["umount", "-l", place], check=False)
    shutil.rmtree(engine.folder)


def _containerd(engine: DockerEngine) -> list[int]:
    return _named(f"{engine.folder}/e/containerd/containerd.toml")


def _shims(engine: DockerEngine) -> list[int]:
    return _named(f"{engine.folder}/e/containerd/containerd.sock")


def _named(argument: str) -> list[int]:
    """The processes that have this path of ours among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def load_images(engine: DockerEngine) -> None:
    """The two images of the tests."""
    load_bare(engine)
    changes = tuple(f"ENV {name}={value}" for name, value in IMAGE_ENV.items())
    debian_image.load(engine.host, FULL, debian_image.debian(debian_image.cache()), changes)


def load_bare(engine: DockerEngine) -> None:
    """The small one, in a second."""
    bare = engine.folder / "bare.tar"
    bare_image(bare)
    debian_image.load(engine.host, BARE, bare, ())


def bare_image(path: Path) -> None:
    """The machine's own shell and few programs, with their libraries."""
    files: dict[str, Path] = {}
    for program in PROGRAMS:
        files[program] = Path(program)
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {word: Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")}
    with tarfile.open(path, "w") as archive:
        for folder in ("tmp", "proc", "dev", "sys", "etc"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(made)
        for name, source in sorted(files.items()):
            archive.add(source.resolve(), arcname=name.lstrip("/"))


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """One for all tests that use containers; it has the two images."""
    with running_engine() as engine:
        load_images(engine)
        yield engine
