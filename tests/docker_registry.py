"""A registry of the tests' own, on loopback, which engines trust without TLS."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docker_engine import DockerEngine, bare_image
from tests.patience import PATIENCE
from tests.whole_system import free_port

from pitstop_common.embedded import die_with_parent

SETTINGS = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextlib.contextmanager
def running_registry(folder: Path) -> Iterator[str]:
    """Its address, host:port, for the length of a block. Skips the test where there is none."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker: docker-registry is not installed")
    port = free_port()
    settings = folder / "registry.yml"
    settings.write_text(SETTINGS.format(folder=folder, port=port))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", settings], stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "registry.log").read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def push(engine: DockerEngine, name: str) -> str:
    """A small image of its own, which is then in the registry and not in the engine. Its digest."""
    tar = engine.folder / "pushed.tar"
    bare_image(tar)
    docker = ["docker", "--host", engine.host]
    subprocess.run([*docker, "import", "--change", f"ENV NAME={name}", tar, name], capture_output=True, check=True)
    said = subprocess.run([*docker, "push", name], capture_output=True, text=True, check=True).stdout
    subprocess.run([*docker, "rmi", name], capture_output=True, check=True)
    return said.partition("digest: ")[2].split()[0]
