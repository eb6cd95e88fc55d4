"""What is docker's own: images with and without what jobs like to have, who runs the steps, what is refused."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.contract.backend_kit import ENV, Machine, close_all, output, pids_of, read_until, run, shell, soon, until
from tests.docker_engine import BARE, FULL, IMAGE_ENV, DockerEngine

from pitstop_sandbox.backends.choosing import choose
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.docker.image import Unusable, describe, full_name
from pitstop_sandbox.backends.port import Backend, BackendError, Exit, Sandbox, Spawn
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.holder.sweep import sweep


@pytest.fixture
def kind() -> str:
    return "docker"


# -- an image with all, and one with next to nothing -----------------------------------------------------------------


async def test_steps_run_as_the_jobs_user_who_may_become_root(machine: Machine, sandbox: Sandbox) -> None:
    _, said = await run(
        sandbox, "id -un; id -u; sudo -n id -u; pwd; hostname; umask; cd ~runner; pwd; touch x", umask=0o027
    )
    assert said.split() == ["runner", "1001", "0", "/home/runner/work", "pitstop", "0027", "/home/runner"]
    assert sandbox.notes == ("no network: only this sandbox's own loopback",)
    assert dict(sandbox.env) == IMAGE_ENV
    assert await sandbox.shells() == ("/bin/bash", "/bin/sh")
    _, said = await run(sandbox, "cat /proc/self/status", name="status")
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert (status["CapEff"], status["CapPrm"], status["CapInh"], status["CapAmb"]) == ("0" * 16,) * 4
    assert (status["CapBnd"], status["Seccomp"]) == ("00000000a80425fb", "2"), "what Docker gives by default"
    assert status["SigIgn"].strip() == status["SigBlk"].strip() == "0" * 16
    given = machine.folder / "job.1" / "work" / "given"
    given.write_text("host\n")
    sandbox.give(given)
    assert await run(sandbox, "cat given && echo inside >given", name="give") == (0, "host\n")


async def test_an_image_without_bash_sudo_and_users_does(machine: Machine, backend: Backend) -> None:
    sandbox = await machine.create(backend, image=BARE)
    assert sandbox.notes[1:] == ("no root inside: this image has no sudo",)
    assert await sandbox.shells() == ("/bin/sh",)
    _, said = await run(sandbox, "id -u; pwd; cat /etc/passwd /proc/self/status")
    assert said.startswith("1001\n/home/runner/work\nrunner:*:1001:1001:runner:/home/runner:/bin/sh\n")
    assert "NoNewPrivs:\t1" in said
    process = await sandbox.spawn(
        shell("stty -a; stty size", name="pty", mode="pty", modes=[(53, 0), (1, 7)], columns=99)
    )
    shown = await read_until(process.fds[0])
    assert b" -echo " in shown and b"intr = ^G;" in shown and b"24 99" in shown
    assert await soon(process.wait()) == Exit(0)
    close_all(process)


async def test_the_environment_is_what_was_given_and_nothing_else(sandbox: Sandbox) -> None:
    env = {**ENV, "EMPTY": "", "ODD": "a=b\nc é", "d": "kept", "IFS": "x"}
    process = await sandbox.spawn(Spawn(id="env", argv=["env", "-0"], env=env, cwd="/tmp", mode="spool"))
    said = dict(line.split("=", 1) for line in (await output(process)).split("\0")[:-1])
    assert {**said, "IFS": "x"} == {**env, "PWD": "/tmp"}


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"cwd": "/nowhere"}, "the folder /nowhere: No such file"),
    ({"cwd": "/etc/passwd"}, "the folder /etc/passwd: Not a directory"),
    ({"cwd": "/root"}, "the folder /root: Permission denied"),
    ({"argv": ["/usr/bin"]}, "/usr/bin: it may not be executed"),
    ({"argv": ["/no/such"], "mode": "pty"}, "no program /no/such here"),
    ({"env": {"PATH": "/nowhere"}, "mode": "pipes"}, "PATH is /nowhere"),
    ({"argv": ["true", "x" * 200_000]}, "too large together"),
    ({"env": {"A=B": ""}}, "environment"),
    ({"argv": ["a\0b"]}, "null"),
    ({"id": "../x"}, "cannot name a process"),
]


async def test_what_cannot_be_started_is_told(sandbox: Sandbox) -> None:
    for request, text in REFUSED:
        fields = {"id": "x", "argv": ["true"], "env": ENV, "cwd": "/", "mode": "spool", **request}
        with pytest.raises(BackendError, match=text) as failed:
            await soon(sandbox.spawn(Spawn(**fields)))  # type: ignore[arg-type]
        assert failed.value.code == "spawn_failed"
    assert await sandbox.processes() == {}


# -- what holds it ---------------------------------------------------------------------------------------------------


async def test_a_tree_is_killed_whole_and_the_main_process_is_out_of_reach(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell("sleep 4321 & (sleep 4322 & setsid sleep 4323 &) ; echo up; exec sleep 4324"))
    await soon(process.grown(0))
    await process.signal(9, tree=True)
    assert await soon(process.wait()) == Exit(137, 9)
    await run(sandbox, "kill -9 1; kill -9 7; kill -9 -1", name="all")
    _, said = await run(sandbox, "exec ps -eo user=,args=", name="last")
    assert [line.split()[0] for line in said.splitlines()] == ["root", "root", "runner"]


async def test_a_holder_is_small(machine: Machine, sandbox: Sandbox) -> None:
    assert (await run(sandbox, "exit 0"))[0] == 0
    status = Path(f"/proc/{pids_of(machine.folder / 'job.1')[-1][0]}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < 14_000, f"{resident} kB"
    left = {each.name for each in (machine.folder / "job.1" / "holder").iterdir()}
    assert left == {"control.sock", "holder.log", "lock", "main.out", "state.json"}, "nothing of a start is left"


async def test_sweep_ends_what_is_left(machine: Machine, backend: Backend, engine: DockerEngine) -> None:
    sandbox = await machine.create(backend)
    await sandbox.spawn(shell("exec sleep 600"))
    await backend.aclose()
    assert await asyncio.to_thread(sweep, machine.folder) == ["job.1"]
    await until(lambda: not machine.living(), "something lives on")
    await until(lambda: engine.get("/containers/json?all=1")[1] == b"[]\n", "the container is left")


async def test_a_container_without_its_holder_is_ended(machine: Machine, engine: DockerEngine) -> None:
    """As a host leaves it that is killed between the engine's answer and the start of the holder."""
    first = machine.backend()
    spec = machine.spec()
    await first._start(spec, await first._images.need("", user="runner", home="/home/runner"))  # type: ignore[attr-defined]
    assert engine.get("/containers/json")[1] != b"[]\n"
    later = machine.backend()
    assert await later.mine(machine.folder.parent) == {spec.folder: "job.1"}
    assert await later.adopt(spec) is None
    assert await later.mine(machine.folder.parent) == {}


async def test_a_cancelled_create_leaves_nothing(machine: Machine, backend: Backend, engine: DockerEngine) -> None:
    making = asyncio.create_task(backend.create(machine.spec()))
    await until(lambda: b"dev.pitstop.sandbox" in engine.get("/containers/json?all=1")[1], "the create has not begun")
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(making)
    assert engine.get("/containers/json?all=1")[1] == b"[]\n"
    assert sorted(each.name for each in machine.spec().folder.iterdir()) == ["bin", "job", "work"]


# -- images ----------------------------------------------------------------------------------------------------------


async def test_an_image_that_cannot_be_had_is_an_error_of_the_job(machine: Machine, backend: Backend) -> None:
    with pytest.raises(
        BackendError, match=r"nowhere.invalid/x:1 is not on this host and could not be fetched"
    ) as failed:
        await backend.create(machine.spec(image="nowhere.invalid/x:1"))
    assert failed.value.code == "image_pull_failed"
    with pytest.raises(BackendError, match="names no image") as failed:
        await machine.backend(settings=Settings()).create(machine.spec())
    assert failed.value.code == "image_missing"
    assert list(machine.spec().folder.iterdir()) == []


def test_a_name_without_a_tag_means_the_latest() -> None:
    names = {"debian": "debian:latest", "debian:12": "debian:12", "host:5000/a": "host:5000/a:latest", "a@sha256:1": ""}
    assert {name: full_name(name) for name in names} == {**names, "a@sha256:1": "a@sha256:1"}


def test_the_images_own_user_is_taken_and_a_new_one_takes_a_free_number() -> None:
    about, home = {"Id": "sha256:1", "Config": {"Env": ["A=b=c"]}}, "/home/runner"

    def found(passwd: str, group: str = "") -> tuple[int, int, tuple[int, ...], bool]:
        image = describe("x", about, passwd, group, {"/bin/sh", home}, user="runner", home=home)
        assert (image.env, image.sudo) == ({"A": "b=c"}, False)
        return image.user.uid, image.user.gid, image.user.groups, b"etc/passwd" in image.files

    assert found("runner:x:5:6::/:\n", "docker:x:7:ada,runner\nx:x:6:runner\n") == (5, 6, (7,), False)
    assert found("a:x:1001:1:::\n", "b:x:1002:\n") == (1003, 1003, (), True)
    with pytest.raises(Unusable, match="is root"):
        found("runner:x:0:0:::\n")
    with pytest.raises(Unusable, match="no /bin/sh"):
        describe("x", about, "", "", (), user="runner", home=home)


# -- choosing --------------------------------------------------------------------------------------------------------


async def test_auto_takes_docker_where_it_works_with_an_image(engine: DockerEngine) -> None:
    def config(**more: str) -> SandboxConfig:
        return SandboxConfig(nats_url="-", **{"docker_host": engine.host, **more})  # type: ignore[arg-type]

    for settings, name, text in (
        (config(docker_image=FULL, sandbox_network="none"), "docker", f"{engine.host}; {FULL}: no network"),
        (config(), "namespaces", "not docker: no image for jobs that name none"),
        (config(docker_host="unix:///nowhere/s"), "namespaces", "not docker: there is no engine at /nowhere/s"),
        (config(docker_host="tcp://example:1"), "namespaces", "not docker: the engine tcp://example:1 is not on this"),
        (config(sandbox="docker"), "docker", "no default image"),
    ):
        choice = await choose(settings)
        await choice.backend.aclose()
        assert choice.backend.name == name and text in choice.found, choice.found


@pytest.fixture
def engine(docker_engine: DockerEngine) -> DockerEngine:
    assert os.geteuid() == 0
    return docker_engine
