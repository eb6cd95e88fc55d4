"""Containers that are ready before a job comes: each is one job's, once, and nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.backend_kit import Machine, pids_of, run, soon, until
from tests.docker_engine import BARE, DockerEngine

from pitstop_sandbox.backends.docker import stock
from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.warm import TAKEN, Taken, read_taken
from pitstop_sandbox.backends.port import SandboxSpec
from pitstop_sandbox.control import install
from pitstop_sandbox.holder import kernel

ONE = stock.Wanted(images={"": 1}, per_minute=6000)


@pytest.fixture
def kind() -> str:
    return "docker"


def warm(machine: Machine, wanted: stock.Wanted = ONE) -> DockerBackend:
    """A backend that keeps some ready, as the service makes it."""
    backend = machine.backend(root=machine.folder.parent, warm=wanted)
    assert isinstance(backend, DockerBackend)
    backend.expects(True)
    return backend


def containers(engine: DockerEngine) -> dict[str, int]:
    """Those that run, and the pids of their first processes."""
    ids = [each["Id"] for each in json.loads(engine.get("/containers/json")[1])]
    found = {each: json.loads(engine.get(f"/containers/{each}/json")[1]) for each in ids}
    return {each: about["State"]["Pid"] for each, about in found.items() if "State" in about}


async def until_ready(engine: DockerEngine, beside: set[str]) -> str:
    """The container that is ready."""
    await until(lambda: len(set(containers(engine)) - beside) == 1, "none is made ready")
    return (set(containers(engine)) - beside).pop()


async def test_a_job_takes_the_one_that_is_ready_and_the_next_job_another(
    machine: Machine, docker_engine: DockerEngine
) -> None:
    backend, root = warm(machine), machine.folder.parent
    await until(lambda: backend.ready == 1, "none is made ready")
    first = await until_ready(docker_engine, set())
    assert await backend.mine(root) == {}, "it is no sandbox"
    spec = machine.spec()
    for name in ("work", "job", "bin"):  # as the runner does
        (spec.folder / name).mkdir()
    install(spec.folder / "bin")
    sandbox = await machine.create(backend)
    assert read_taken(spec.folder) == Taken(first, "job.1", Path(_folder_of(docker_engine, first)).name)
    (spec.folder / "work" / "given").write_text("host\n")
    sandbox.give(spec.folder / "work" / "given")
    code, said = await run(sandbox, "cat given; id -un; echo inside >>given; touch /run/pitstop/x; pitstop-step 2>&1; "
                           "touch /opt/pitstop/bin/x", env={"PATH": "/opt/pitstop/bin:/usr/bin:/bin"})  # fmt: skip
    assert code == 1 and said.startswith("host\nrunner\n") and "pitstop-step" in said and "Read-only" in said
    assert (spec.folder / "work" / "given").read_text() == "host\ninside\n"
    assert (spec.folder / "job" / "x").stat().st_uid == 1001
    assert await backend.mine(root) == {spec.folder: "job.1"}
    await until(lambda: backend.ready == 1, "there is no next one")
    second = await until_ready(docker_engine, {first})

    os.kill(containers(docker_engine)[second], signal.SIGKILL)
    await until(lambda: second not in containers(docker_engine), "it lives")
    other = await machine.create(backend, "job.2", image=BARE)
    assert read_taken(machine.folder / "job.2") is None, "of another image, so it was made for this job"
    await other.remove()
    await sandbox.remove()
    await until(lambda: not {first, second} & set(containers(docker_engine)), "a container is used again")
    assert sorted(each.name for each in spec.folder.iterdir()) == ["bin", "job", "work"]

    backend.expects(False)
    await until(lambda: containers(docker_engine) == {}, "a drained host keeps some ready")
    assert backend.ready == 0
    backend.expects(True)
    await until(lambda: backend.ready == 1, "a host that takes jobs again has none ready")
    await backend.aclose()
    assert docker_engine.get("/containers/json?all=1") == (200, b"[]\n")
    assert list((root / "warm").iterdir()) == []


def _folder_of(engine: DockerEngine, container: str) -> str:
    about = json.loads(engine.get(f"/containers/{container}/json")[1])
    return str(about["Config"]["Labels"]["dev.pitstop.folder"])


async def test_one_that_is_too_old_is_replaced(machine: Machine, docker_engine: DockerEngine) -> None:
    warm(machine, stock.Wanted(images={BARE: 1}, age=0.5, per_minute=6000))
    seen: set[str] = set()

    def looked() -> bool:
        seen.update(containers(docker_engine))
        return len(seen) > 1

    await until(looked, "the same one stays")


async def test_the_host_comes_again_and_the_job_has_its_container(
    machine: Machine, docker_engine: DockerEngine
) -> None:
    backend, root = warm(machine), machine.folder.parent
    await until(lambda: backend.ready == 1, "none is made ready")
    await machine.create(backend)
    folder = machine.folder / "job.1"
    taken = read_taken(folder)
    assert taken is not None
    await backend.aclose()
    assert set(containers(docker_engine)) == {taken.container}
    later = warm(machine, stock.NOTHING)
    assert await later.mine(root) == {folder: "job.1"}
    adopted = await later.adopt(machine.spec())
    assert adopted is not None and await run(adopted, "echo $PPID $(pwd)", name="again")
    # Its holder is killed, and its container has somebody inside who holds it: it is found by the folder alone.
    (holder, _), pid = pids_of(folder)[-1], containers(docker_engine)[taken.container]
    line = os.open(f"/proc/{pid}/root/opt/pitstop/life/line", os.O_RDWR)
    os.kill(holder, signal.SIGKILL)
    await soon(adopted.lost())
    assert kernel.start_time(pid), "it has ended"
    assert await later.mine(root) == {folder: "job.1"}
    assert await later.adopt(machine.spec()) is None
    os.close(line)
    assert containers(docker_engine) == {} and not (folder / TAKEN).exists()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from pitstop_sandbox.backends.docker import stock, warm
from pitstop_sandbox.backends.docker.backend import DockerBackend
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.port import SandboxSpec

host, image, folder, left = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
armed = False

def hook(event, arguments):
    global left
    if armed and event in ("os.rename", "os.mkdir", "os.rmdir"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    global armed
    wanted = stock.Wanted(images={"": 1}, per_minute=6000)
    backend = DockerBackend(host=host, settings=Settings(image=image), root=folder.parent.parent, warm=wanted)
    backend.expects(True)
    while backend.ready < 1:
        await asyncio.sleep(0.01)
    (folder / "bin").mkdir(parents=True)
    (folder / "work").mkdir()
    (folder / "bin" / "tool").touch()
    armed = True
    await backend.create(SandboxSpec(id=folder.name, folder=folder))
    print("created", flush=True)
    signal.pause()

sys.addaudithook(hook)
asyncio.run(main())
"""


async def test_a_host_that_is_killed_while_a_job_takes_one_leaves_nothing(
    machine: Machine, docker_engine: DockerEngine
) -> None:
    """At each change that it makes in the file system, one after the other."""
    root, point = machine.folder.parent, 0
    while True:
        folder = machine.folder / f"job.{point + 1}"
        argv = [sys.executable, "-c", KILLED, docker_engine.host, BARE, str(folder), str(point)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as host:
            assert host.stdout
            done = await soon(asyncio.to_thread(host.stdout.readline))
            host.kill()
        later = warm(machine, stock.NOTHING)
        spec = machine.spec(folder.name)
        adopted = await later.adopt(spec)
        assert (adopted is not None) == bool(done)
        if adopted is not None:
            assert (await run(adopted, "echo up"))[1] == "up\n"
            await adopted.remove()
        for left, id in (await later.mine(root)).items():  # as the host's sweep does
            assert await later.adopt(SandboxSpec(id=id, folder=left)) is None
        await until(lambda: docker_engine.get("/containers/json?all=1") == (200, b"[]\n"), f"left at {point}")
        await until(lambda: list((root / "warm").iterdir()) == [], f"left at {point}")
        assert {each.name for each in folder.iterdir()} <= {"work", "job", "bin", f"{TAKEN}.tmp"}
        await later.aclose()
        if done:
            break
        point += 1
    assert point > 7
