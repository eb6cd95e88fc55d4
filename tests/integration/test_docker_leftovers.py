"""Containers that a killed host leaves, wherever it was, the next one finds; those of others are never touched."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.docker_engine import BARE, DockerEngine
from tests.jobs import DEADLINE
from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_sandbox.backends.docker import container, runtime
from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.docker.engine import Engine
from pitstop_sandbox.backends.holders import Holders
from pitstop_sandbox.backends.holding import HeldSandbox
from pitstop_sandbox.backends.port import BackendError, Exit, Sandbox, SandboxSpec, Spawn


def spec(root: Path, name: str = "job.1") -> SandboxSpec:
    (root / "jobs" / name).mkdir(parents=True, exist_ok=True)
    return SandboxSpec(id=name, folder=root / "jobs" / name)


def host(engine: DockerEngine, root: Path) -> DockerBackend:
    return DockerBackend(host=engine.host, settings=Settings(image=BARE), root=root)


async def sweep(backend: DockerBackend, root: Path) -> list[str]:
    """As a host does: what nobody has in hand ends. Their ids."""
    found = await backend.mine(root)
    for folder, id in found.items():
        sandbox = await backend.adopt(SandboxSpec(id=id, folder=folder))
        if sandbox is not None:
            await sandbox.remove()
    return list(found.values())


async def works(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(Spawn(id="works", argv=["sh", "-c", "exit 3"], env={}, cwd="/", mode="spool"))
    async with asyncio.timeout(DEADLINE):
        assert await process.wait() == Exit(3)


# -- killed at each effect of a create -----------------------------------------------------------------------------


class Doom:
    """Counts effects; before the chosen one the process is killed."""

    def __init__(self, fatal: int, told: Path) -> None:
        self.fatal, self.told, self.count = fatal, told, 0

    def here(self) -> None:
        self.count += 1
        self.told.write_text(str(self.count))
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.here()
            return real(*args, **kwargs)

        setattr(owner, name, call)


def creating(engine: DockerEngine, root: Path, fatal: int, told: Path) -> int:
    """The wait status of a process that creates a sandbox, and dies there. It is a copy of this one."""
    if (pid := os.fork()) == 0:
        try:
            doom = Doom(fatal, told)
            for name in ("image", "info", "create", "read", "has", "put", "start", "remove"):
                doom.before(Engine, name)
            doom.before(runtime, "find")
            doom.before(Holders, "make")
            doom.before(HeldSandbox, "make")
            doom.before(HeldSandbox, "ask")
            asyncio.run(create_and_go(engine, root))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


async def create_and_go(engine: DockerEngine, root: Path) -> None:
    backend = host(engine, root)
    await backend.create(spec(root))


async def next_host(engine: DockerEngine, root: Path) -> None:
    """It finds what there is; or nothing, and all is made anew."""
    backend = host(engine, root)
    before = await backend.mine(root)
    assert set(before.values()) <= {"job.1"}
    sandbox = await backend.adopt(spec(root))
    if sandbox is None:
        assert await backend.mine(root) == {} and engine.containers() == []
        if not before:
            sandbox = await backend.create(spec(root))
    if sandbox is not None:
        await works(sandbox)
        await sandbox.remove()
    await backend.aclose()
    assert not (root / "jobs/job.1/life").exists()


def test_a_host_killed_anywhere_in_a_create_leaves_nothing(docker_engine: DockerEngine, tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert creating(docker_engine, tmp_path / "0", 0, told) == 0
    asyncio.run(next_host(docker_engine, tmp_path / "0"))
    effects = int(told.read_text())
    assert effects > 8
    for fatal in range(2, effects + 1):
        root = tmp_path / str(fatal)
        assert creating(docker_engine, root, fatal, told) == signal.SIGKILL
        asyncio.run(next_host(docker_engine, root))
        wait_until(lambda: docker_engine.containers() == [], PATIENCE)


# -- others --------------------------------------------------------------------------------------------------------


async def test_what_is_not_this_hosts_survives_every_sweep(docker_engine: DockerEngine, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "host", tmp_path / "other"
    mine = container.folder_labels(spec(root).folder)
    copied = {container.SANDBOX: "job.1", **mine}
    others = {
        "plain": {},
        "copied": copied,  # as of an image that a job's container was committed to
        "pitstop-job.2-cafe": copied,
        "half": {container.ROOT: str(root)},
        "pitstop-job.1-outside": {**copied, container.FOLDER: str(elsewhere / "jobs/job.1")},
        "pitstop-job.1-above": {**copied, container.FOLDER: f"{root}/jobs/.."},
        "pitstop-job.1-root": {**copied, container.ROOT: str(elsewhere)},
        "look": {container.LOOK: "", container.ROOT: str(root)},
        "pitstop-look-cafe": {container.LOOK: "", container.ROOT: str(elsewhere)},
    }
    foreign = {docker_engine.make(name, labels) for name, labels in others.items()}
    backend, other = host(docker_engine, root), host(docker_engine, elsewhere)
    try:
        theirs = await other.create(spec(elsewhere))
        before = set(docker_engine.containers())
        own = await backend.create(spec(root, "job.3"))
        docker_engine.make("pitstop-look-beef", {container.LOOK: "", container.ROOT: str(root)})
        docker_engine.make("pitstop-job.1-beef", copied)
        assert sorted(await sweep(backend, root)) == ["job.1", "job.3"]
        assert set(docker_engine.containers()) == before
        assert await sweep(backend, root) == []
        with pytest.raises(BackendError, match="gone"):
            await works(own)
        assert await backend.adopt(spec(root)) is None
        assert set(docker_engine.containers()) == before
        await works(theirs)
        await theirs.remove()
        assert set(docker_engine.containers()) == foreign
    finally:
        await backend.aclose()
        await other.aclose()
        for each in docker_engine.containers():
            docker_engine.remove(f"/containers/{each}?force=1")
