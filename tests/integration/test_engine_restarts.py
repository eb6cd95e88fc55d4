"""The engine is stopped, killed and frozen under jobs in containers: they go on, or end and say why; nothing runs twice
and nothing is left."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.docker_engine import BARE, DockerEngine, load_bare, running_engine
from tests.jobs import run_of, step
from tests.killed_hosts import Hosts, once
from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_common.errors import ConfigError
from pitstop_sandbox.backends.choosing import choose
from pitstop_sandbox.backends.docker import pulse
from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.port import BackendError, Exit, SandboxSpec, Spawn
from pitstop_sandbox.config import SandboxConfig

LINES = "i=0; until [ -e go ]; do echo line $i; i=$((i+1)); sleep 0.02; done; echo end $i; exit 7"
ENGINE_LOST_SECONDS = 25


async def begun(folder: Path, engine: DockerEngine) -> Hosts:
    """A job whose step is in the middle of its output."""
    folder.mkdir()
    hosts = Hosts(folder, engine, BARE)
    await hosts.start(run_of(LINES, step("cat go; id -un", condition="always")))
    await hosts.when(lambda: len(hosts.store.log(1)) > 3)
    return hosts


async def goes_on(hosts: Hosts) -> None:
    said = len(hosts.store.log(1))
    await hosts.when(lambda: len(hosts.store.log(1)) > said + 5)


async def ends_well(hosts: Hosts) -> None:
    (hosts.folder / "work/go").write_text("went\n")
    await hosts.end()
    *lines, last = hosts.store.log(1)
    assert lines == [f"line {number}" for number in range(len(lines))] and last == f"end {len(lines)}"
    assert hosts.store.log(2) == ["went", "runner"]
    assert [entry.exit_code for entry in hosts.store.report().steps] == [7, 0]
    once(hosts.store)


async def ends_with_the_engine(hosts: Hosts) -> None:
    await hosts.end()
    end = hosts.store.last("job.finished")
    assert (end["result"], end["reason"]) == ("error", "engine_lost"), end
    assert "was stopped or restarted" in end["message"] and "live-restore" in end["message"]
    once(hosts.store)


async def test_with_live_restore_jobs_go_on(tmp_path: Path) -> None:
    with running_engine("--live-restore") as engine:
        load_bare(engine)
        hosts = await begun(tmp_path / "a", engine)
        for number in (signal.SIGTERM, signal.SIGKILL):
            engine.end(number)
            await goes_on(hosts)
            assert engine.begin() == ""
            await goes_on(hosts)
        await hosts.kill()
        await hosts.start()
        await goes_on(hosts)
        await ends_well(hosts)
        wait_until(lambda: engine.containers() == [], PATIENCE)


async def test_without_it_jobs_end_with_the_engine_and_not_before(tmp_path: Path) -> None:
    with running_engine() as engine:
        load_bare(engine)
        stopped = await begun(tmp_path / "a", engine)
        at = time.monotonic()
        engine.end()

        await ends_with_the_engine(stopped)

        assert time.monotonic() - at < ENGINE_LOST_SECONDS
        assert engine.begin() == ""
        assert engine.containers() == []

        killed, ends = await asyncio.gather(begun(tmp_path / "b", engine), begun(tmp_path / "c", engine))

        engine.end(signal.SIGKILL)
        await goes_on(killed)
        await ends_well(ends)
        assert engine.begin() == ""

        await ends_with_the_engine(killed)

        wait_until(lambda: engine.containers() == [], PATIENCE)


@pytest.fixture
async def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[DockerBackend, DockerEngine]]:
    """Of an engine of its own."""
    monkeypatch.setattr(pulse, "PING_SECONDS", 2.0)
    monkeypatch.setattr(pulse, "PING_EVERY", 0.2)
    with running_engine() as engine:
        load_bare(engine)
        made = DockerBackend(host=engine.host, settings=Settings(image=BARE))
        yield made, engine
        await made.aclose()
        wait_until(lambda: engine.containers() == [], PATIENCE)


def spec(folder: Path, name: str) -> SandboxSpec:
    (folder / "jobs" / name).mkdir(parents=True)
    return SandboxSpec(id=name, folder=folder / "jobs" / name)


async def a_host_that_starts_now_takes_it_up(engine: DockerEngine, root: Path) -> None:
    config = SandboxConfig(
        nats_url="-", sandbox="docker", docker_host=engine.host, docker_image=BARE, dir=root, sandbox_network="none"
    )
    choice = await choose(config)
    assert "it hangs" in choice.found and "the jobs there are go on" in choice.found
    adopted = await choice.backend.adopt(SandboxSpec(id="one.1", folder=root / "jobs/one.1"))
    assert adopted is not None and set(await adopted.processes()) == {"on"}
    await choice.backend.aclose()
    with pytest.raises(ConfigError, match="it hangs"):
        await choose(msgspec.structs.replace(config, dir=root / "another"))


async def test_an_engine_that_hangs_holds_nothing_up(
    backend: tuple[DockerBackend, DockerEngine], tmp_path: Path
) -> None:
    made, engine = backend
    sandbox = await made.create(spec(tmp_path, "one.1"))
    engine.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(BackendError, match=r"hangs|has answered") as failed:
            await made.create(spec(tmp_path, "two.1"))
        assert failed.value.code == "engine_lost"
        process = await sandbox.spawn(Spawn(id="on", argv=["sh", "-c", "exit 3"], env={}, cwd="/", mode="spool"))
        assert await process.wait() == Exit(3)
        await a_host_that_starts_now_takes_it_up(engine, tmp_path)
        with pytest.raises(BackendError, match="hangs"):
            await sandbox.remove()
        assert await made.mine(tmp_path) == {}
    finally:
        engine.process.send_signal(signal.SIGCONT)
    third = await made.create(spec(tmp_path, "three.1"))
    # What it did when it came to, for those who had gone: the sweep finds it.
    for folder, id in (await made.mine(tmp_path)).items():
        if id != "three.1":
            assert await made.adopt(SandboxSpec(id=id, folder=folder)) is None
    await third.remove()
