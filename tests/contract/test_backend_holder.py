"""Holders of namespace sandboxes: what they keep through crashes, what they bound, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.contract.backend_kit import (
    Machine,
    close_all,
    lives,
    output,
    pids_of,
    read_until,
    shell,
    soon,
    until,
)

from pitstop_sandbox.backends.port import Backend, BackendError, Exit, Sandbox
from pitstop_sandbox.holder import kernel
from pitstop_sandbox.holder.sweep import sweep

HOST = """
import asyncio, sys
from pathlib import Path
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import SandboxSpec, Spawn

async def main():
    backend = NamespacesBackend()
    sandbox = await backend.create(SandboxSpec(id="job.1", folder=Path(sys.argv[1])))
    step = "for i in 1 2 3 4 5; do echo line $i; done; while [ ! -e go ]; do sleep 0.02; done; echo went; exit 9"
    for name, text, mode in (("step", step, "spool"), ("shell", "echo shell; exec cat", "pty")):
        await sandbox.spawn(Spawn(id=name, argv=["sh", "-c", text], env={"PATH": "/usr/bin:/bin"},
                                  cwd="/home/runner/work", mode=mode))
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def start_host(folder: Path) -> asyncio.subprocess.Process:
    """A host process that has made a sandbox with a step and a shell."""
    pipe = asyncio.subprocess.PIPE
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", HOST, str(folder), stdout=pipe)
    assert host.stdout
    assert await soon(host.stdout.readline()) == b"ready\n"
    return host


# -- crashes ---------------------------------------------------------------------------------------------------------


async def test_a_killed_host_process_loses_nothing(machine: Machine) -> None:
    spec = machine.spec()
    host = await start_host(spec.folder)
    host.kill()
    await soon(host.wait())

    sandbox = await machine.backend().adopt(spec)
    assert sandbox
    there = await sandbox.processes()
    assert set(there) == {"step", "shell"}
    (spec.folder / "work" / "go").touch()
    assert await soon(there["step"].wait()) == Exit(9)
    assert await output(there["step"]) == "".join(f"line {n}\n" for n in range(1, 6)) + "went\n"

    shell_again = await sandbox.spawn(shell("", name="shell", mode="pty"))
    os.write(shell_again.fds[0], b"still here\n")
    assert b"still here\r\nstill here" in await read_until(shell_again.fds[0], b"still here\r\nstill here")
    close_all(shell_again)
    await sandbox.remove()
    assert not (spec.folder / "holder").exists()


async def test_a_killed_host_process_takes_its_spare_along(machine: Machine) -> None:
    spec = machine.spec()
    host = await start_host(spec.folder)
    holder = pids_of(spec.folder)[-1][0]
    children = Path(f"/proc/{host.pid}/task/{host.pid}/children")
    await until(lambda: len(children.read_text().split()) == 2, "there is no spare")
    (spare,) = {int(pid) for pid in children.read_text().split()} - {holder}
    host.kill()
    await soon(host.wait())
    await until(lambda: not Path(f"/proc/{spare}").exists() or "Z" in _state(spare), "the spare is left")
    assert sweep(machine.folder) == ["job.1"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


async def test_a_killed_holder_takes_the_sandbox_along(machine: Machine, backend: Backend, sandbox: Sandbox) -> None:
    await sandbox.spawn(shell("setsid sleep 600 & exec sleep 600"))
    lost = asyncio.create_task(sandbox.lost())
    pids = pids_of(machine.folder / "job.1")
    os.kill(pids[-1][0], signal.SIGKILL)
    assert "the sandbox's holder was killed" in str(await soon(lost))
    await until(lambda: not any(lives(*each) for each in pids), "the sandbox outlives its holder")
    assert await backend.adopt(machine.spec()) is None
    await sandbox.remove()


async def test_the_end_of_process_one_is_told_as_lost_and_not_as_an_exit(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell("echo before; exec sleep 600"))
    await soon(process.grown(0))
    os.kill(pids_of(machine.folder / "job.1")[0][0], signal.SIGKILL)
    assert "first process" in str(await soon(sandbox.lost()))
    with pytest.raises(BackendError, match="first process"):
        await soon(process.wait())
    ended = json.loads((machine.folder / "job.1" / "holder" / "ended.json").read_text())
    assert "first process" in ended["reason"]
    assert process.spool
    assert process.spool.read_text() == "before\n"


async def test_a_holder_nobody_comes_back_to_ends_its_sandbox(machine: Machine) -> None:
    backend = machine.backend(orphan_grace=0.2)
    sandbox = await machine.create(backend)
    await sandbox.spawn(shell("exec sleep 600"))
    await backend.aclose()
    await until(lambda: not machine.living(), "the orphan lives on")
    ended = json.loads((machine.folder / "job.1" / "holder" / "ended.json").read_text())
    assert ended["reason"] == "no host process came back for 0.2 s"
    assert not (machine.folder / "job.1" / "holder" / "control.sock").exists()
    assert await machine.backend().adopt(machine.spec()) is None


async def test_a_failed_create_leaves_nothing(machine: Machine) -> None:
    backend = machine.backend(bwrap="/bin/false")
    with pytest.raises(BackendError) as failed:
        await backend.create(machine.spec())
    assert failed.value.code == "create_failed"
    assert sorted(each.name for each in machine.spec().folder.iterdir()) == ["bin", "job", "work"]
    assert (await backend.probe())[0] is False


async def test_a_host_process_that_is_there_and_silent_is_waited_for_no_longer(machine: Machine) -> None:
    """As one that is stopped, or hangs, or has lost NATS. One that never said anything is no host."""
    backend = machine.backend(orphan_grace=1.0)
    sandbox = await machine.create(backend)
    never = await machine.create(machine.backend(orphan_grace=1.0), "job.2")
    await sandbox.spawn(shell("exec sleep 600"))
    begun = time.monotonic()
    while time.monotonic() - begun < 2.0:  # longer than the grace
        backend.alive()
        await asyncio.sleep(0.05)
    assert set(await soon(sandbox.processes())) == {"main"}
    assert "not been seen" in str(await soon(sandbox.lost()))
    later = await machine.create(backend, "job.3")
    assert "not been seen" in str(await soon(later.lost())), "it was made between two heartbeats, and heard of none"
    assert (await soon(never.processes())) == {}
    await sandbox.remove()


async def test_a_cancelled_create_leaves_nothing(machine: Machine, backend: Backend) -> None:
    making = asyncio.create_task(machine.create(backend))
    await until(lambda: (machine.folder / "job.1" / "holder" / "state.json").exists(), "the create has not begun")
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(making)
    assert not (machine.folder / "job.1" / "holder").exists()


def processes_of(uids: range) -> list[str]:
    """The command lines of all living processes of these users."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid in uids or _user(path) in uids:
                found.append((path / "cmdline").read_text()[:60])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [each for each in found if each]


def _user(path: Path) -> int:
    (line,) = (line for line in (path / "status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.006, 0.009, 0.013])
async def test_a_holder_killed_while_it_makes_a_sandbox_leaves_nothing(machine: Machine, delay: float) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: the sandbox is found by its own user")
    uids = range(219000, 219010)
    backend = machine.backend(uids=uids)
    making = asyncio.create_task(machine.create(backend))
    state = machine.folder / "job.1" / "holder" / "state.json"
    await until(state.exists, "the create has not begun")
    await asyncio.sleep(delay)
    os.kill(pids_of(machine.folder / "job.1")[-1][0], signal.SIGKILL)
    try:
        sandbox = await soon(making)
    except BackendError:
        assert not state.exists()
    else:
        assert (await soon(sandbox.lost())).code == "sandbox_lost"
        await sandbox.remove()
    await until(lambda: not processes_of(uids), "something is left")


# -- sweep -----------------------------------------------------------------------------------------------------------


async def test_sweep_ends_what_is_left(machine: Machine, backend: Backend) -> None:
    for name in ("a.1", "b.1"):
        sandbox = await machine.create(backend, name)
        await sandbox.spawn(shell("exec sleep 600"))
    await backend.aclose()
    command = [sys.executable, "-m", "pitstop_sandbox.holder", "sweep", str(machine.folder)]
    sweeper = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await soon(sweeper.communicate())
    assert (sweeper.returncode, said) == (0, b"ended a.1\nended b.1\n")
    assert machine.living() == []
    assert sweep(machine.folder) == []


async def test_sweep_kills_a_holder_that_does_not_answer(
    machine: Machine, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await machine.create(backend)
    await sandbox.spawn(shell("exec sleep 600"))
    pids = pids_of(machine.folder / "job.1")
    os.kill(pids[-1][0], signal.SIGSTOP)
    monkeypatch.setattr("pitstop_sandbox.holder.sweep.ANSWER_SECONDS", 0.1)
    assert await asyncio.to_thread(sweep, machine.folder) == ["job.1"]
    await until(lambda: not machine.living(), "the stopped holder lives on")
    await sandbox.remove()


async def test_sweep_never_kills_a_recycled_pid(machine: Machine, backend: Backend) -> None:
    sandbox = await machine.create(backend)
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    state = machine.folder / "job.1" / "holder" / "state.json"
    content = json.loads(state.read_text())
    await sandbox.remove()
    state.parent.mkdir()
    earlier = kernel.start_time(bystander.pid) - 1
    state.write_text(json.dumps({**content, "pids": [[bystander.pid, earlier] for _ in content["pids"]]}))
    assert sweep(machine.folder) == []
    assert bystander.returncode is None
    bystander.kill()
    assert await soon(bystander.wait()) == -signal.SIGKILL
