"""One job whose host process is killed: what it comes to is in a store that outlives everybody."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.docker_engine import FULL, DockerEngine
from tests.jobs import DEADLINE, JOB, Store, until
from tests.runner_host import backend_of

from pitstop_common.messages import encode
from pitstop_common.spec import RunSpec
from pitstop_sandbox.backends.port import SandboxSpec

ROOT = Path(__file__).parents[1]


class Hosts:
    """One job, and the processes that drive it one after another. `engine`: of its sandbox; none: namespaces."""

    def __init__(self, folder: Path, engine: DockerEngine | None = None, image: str = FULL) -> None:
        self._env = dict(os.environ)
        if engine is not None:
            self._env |= {"TEST_ENGINE": engine.host, "TEST_IMAGE": image}
        self.folder = folder / "job"
        self.store = Store(folder / "job.store")
        self._spec = folder / "spec.json"
        self._process: asyncio.subprocess.Process | None = None
        self.count = 0

    async def start(self, run: RunSpec | None = None) -> None:
        """The next process."""
        if run is not None:
            self._spec.write_bytes(encode(run))
        self.count += 1
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.runner_host", str(self.folder), str(self._spec), f"i{self.count}",
            stdin=asyncio.subprocess.PIPE, cwd=ROOT, env=self._env,
        )  # fmt: skip

    async def when(self, reached: Callable[[], bool]) -> None:
        """Returns when the store says so; fails when the process ends before."""
        process = self._process
        assert process is not None
        await until(lambda: reached() or process.returncode is not None)
        assert reached(), f"the host ended with {process.returncode}: {self.store.types()}"

    def say(self, words: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{words}\n".encode())

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def end(self) -> None:
        """The job ends, and the process with it."""
        assert self._process is not None
        async with asyncio.timeout(DEADLINE):
            assert await self._process.wait() == 0

    async def remove(self) -> None:
        """Kill the host, and take away the sandbox that is there."""
        await self.kill()
        backend = backend_of(self._env)
        left = await backend.adopt(SandboxSpec(id=f"{JOB}.1", folder=self.folder))
        if left is not None:
            await left.remove()
        await backend.aclose()


def once(store: Store) -> None:
    """Facts are numbered without a gap that a lost fact would leave: notes take numbers too, so: rising, unique."""
    numbers = [int(fact["id"].rpartition(".")[2]) for fact in store.facts()]
    assert numbers == sorted(set(numbers))
    assert store.types().count("job.finished") == 1
    assert store.types().count("sandbox.ready") == 1
