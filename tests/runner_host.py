"""A process that drives one JobRunner, to be killed by tests: `python -m tests.runner_host FOLDER SPEC INCARNATION`.

Its sandbox is a container when its environment has TEST_ENGINE and TEST_IMAGE. Reads words from stdin: `enter ID`,
`resume`, `stop`. Facts and log go to the file store beside the folder.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from tests.jobs import SETTINGS, Store, address

from pitstop_common.messages import Resume, Stop
from pitstop_common.spec import RunSpec
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import Backend
from pitstop_sandbox.outbox import Identity
from pitstop_sandbox.ports import Session
from pitstop_sandbox.runner import JobRunner


async def main(folder: Path, spec: Path, incarnation: str) -> None:
    run = msgspec.json.decode(spec.read_bytes(), type=RunSpec)
    store = Store(folder.parent / f"{folder.name}.store")
    backend = backend_of(os.environ)
    job = run.jobs[0]
    runner = JobRunner(
        run, job, 1, folder, backend, store, store, Identity("host", incarnation), address, settings=SETTINGS
    )
    listening = asyncio.create_task(obey(runner))
    await runner.run()
    listening.cancel()
    await backend.aclose()


def backend_of(env: Mapping[str, str]) -> Backend:
    """Containers of the engine that is named there, or namespaces."""
    if engine := env.get("TEST_ENGINE"):
        from pitstop_sandbox.backends.docker import container
        from pitstop_sandbox.backends.docker.backend import DockerBackend

        return DockerBackend(host=engine, settings=container.Settings(image=env["TEST_IMAGE"]))
    return NamespacesBackend()


async def obey(runner: JobRunner) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    about = {"org": "acme", "run": runner.state.run.run, "job": runner.job, "attempt": 1}
    while word := (await reader.readline()).decode().split():
        if word[0] == "enter":
            await runner.opened(Session(id=word[1], user="ada", fingerprint="", client=""))
        elif word[0] == "resume":
            await runner.resume(Resume(**about))  # type: ignore[arg-type]
        else:
            await runner.stop(Stop(result="cancellation", **about))  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
