"""The whole system as a newcomer starts it (`pitstop up --json`), and a real Prometheus that scrapes it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from tests.patience import PATIENCE

from pitstop_common.embedded import die_with_parent

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools"
NOTHING: Mapping[str, str] = MappingProxyType({})
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"


@contextlib.contextmanager
def running_system(folder: Path, *options: str, env: Mapping[str, str] = NOTHING) -> Iterator[dict[str, Any]]:
    """What `pitstop up --json` printed, for the length of a block. It is drained at the end."""
    command = [str(Path(sys.executable).parent / "pitstop"), "up", "--json", "--dir", str(folder), *options]
    with (folder.with_suffix(".log")).open("wb") as log:
        up = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, preexec_fn=die_with_parent, env={**os.environ, **env}
        )
    try:
        assert up.stdout is not None
        assert select.select([up.stdout], [], [], 60)[0], "pitstop up said nothing"
        yield json.loads(up.stdout.readline())
        up.send_signal(signal.SIGINT)
        up.wait(60)
    finally:
        if up.poll() is None:
            up.kill()
        up.wait()
        if up.stdout is not None:
            up.stdout.close()


def prometheus_binary() -> Path:
    """Debian's prometheus: the installed one, or its package unpacked into .tools (no unit is started, nothing of the
    system changes). Skips the test when apt has none."""
    found = shutil.which("prometheus")
    if found:
        return Path(found)
    binary = TOOLS / "prometheus" / "usr" / "bin" / "prometheus"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists() and not _unpack("prometheus", TOOLS / "prometheus"):
            pytest.skip("prometheus: not installed, and `apt-get download prometheus` failed")
    return binary


def _unpack(package: str, target: Path) -> bool:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return False
    folder = TOOLS / "download"
    folder.mkdir(exist_ok=True)
    for before in ((), ("apt-get", "update", "-qq")):
        if before:
            subprocess.run(before, capture_output=True, timeout=60)
        fetched = subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, capture_output=True, timeout=90)
        if fetched.returncode == 0:
            break
    packages = sorted(folder.glob(f"{package}_*.deb"))
    if not packages:
        return False
    subprocess.run(["dpkg-deb", "-x", packages[-1], target], check=True)
    shutil.rmtree(folder)
    return True


class Prometheus:
    """A running server. Queries raise AssertionError with Prometheus' own words."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The result vector now."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def up(self) -> dict[str, bool]:
        """Job -> scraped without an error."""
        return {one["metric"]["job"]: one["value"][1] == "1" for one in self.query("up")}

    def _get(self, path: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None


@contextlib.contextmanager
def running_prometheus(folder: Path, metrics: dict[str, str]) -> Iterator[Prometheus]:
    """With deploy/prometheus/prometheus.yml as it is shipped, but for the addresses and a quicker scrape."""
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    for job in config["scrape_configs"]:
        address = urllib.parse.urlsplit(metrics[job["job_name"].removeprefix("pitstop-")]).netloc
        job["static_configs"] = [{"targets": [address]}]
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        str(prometheus_binary()), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, stdout=log, preexec_fn=die_with_parent)
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: _is_ready(prometheus.url), PATIENCE)
        yield prometheus
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Any, seconds: float) -> None:
    """AssertionError when the state does not come in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the state did not come"
        time.sleep(0.05)


def page(url: str) -> str:
    """A page of metrics."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        text: str = reply.read().decode()
        return text


def families(text: str) -> set[str]:
    """The metrics that a page declares, also those without a series yet."""
    return set(re.findall(r"^# TYPE (\S+) ", text, re.M))


def series(text: str) -> set[str]:
    """Each series of a page: its name and labels."""
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def ssh(address: dict[str, Any], folder: Path, key: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Stock OpenSSH, with its own files only."""
    hosts = folder / "known_hosts"
    hosts.write_text(address["known_hosts"] + "\n")
    return subprocess.run(
        ["ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={hosts}",
         "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-p", str(address["port"]),
         f"{address['user']}@{address['host']}", *command],
        capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, env=os.environ | {"SSH_AUTH_SOCK": ""},
    )  # fmt: skip
