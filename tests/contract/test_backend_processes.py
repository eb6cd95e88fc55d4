"""Processes of namespace sandboxes: output, terminals, trees, and what cannot be started."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.contract.backend_kit import (
    ENV,
    INIT,
    WORKSPACE,
    Machine,
    close_all,
    output,
    pids_of,
    read_until,
    run,
    shell,
    soon,
)

from pitstop_sandbox.backends.port import Backend, BackendError, Exit, Sandbox, Spawn


async def test_ten_megabytes_are_spooled_whole_and_in_order(sandbox: Sandbox) -> None:
    said = (await run(sandbox, "seq 1 1400000"))[1]
    assert len(said) > 10_000_000
    assert said == "".join(f"{n}\n" for n in range(1, 1_400_001))


async def test_a_spool_is_cut_at_its_limit_and_the_process_goes_on(machine: Machine) -> None:
    sandbox = await machine.create(machine.backend(spool_bytes=100_000))
    code, said = await run(sandbox, "seq 1 1000000; exit 3")
    assert code == 3
    kept, marker = said[:100_000], said[100_000:]
    assert kept == "".join(f"{n}\n" for n in range(1, 1_000_001))[:100_000]
    assert marker == "\n[pitstop: this output is longer than 100000 bytes; the rest is not kept]\n"


async def test_a_terminal_is_a_real_one(sandbox: Sandbox) -> None:
    text = "tty; test -t 0 && test -t 1 && test -t 2 && echo yes; ps -o tty= -p $$; echo end"
    process = await sandbox.spawn(shell(text, mode="pty"))
    said = await read_until(process.fds[0])
    assert said.split() == [b"/dev/pts/0", b"yes", b"pts/0", b"end"]
    assert await soon(process.wait()) == Exit(0)
    close_all(process)


async def test_the_modes_of_a_terminal_are_set_before_its_program_runs(sandbox: Sandbox) -> None:
    """Set later, they would undo those of a shell that edits its line, and what is typed would be shown twice."""
    process = await sandbox.spawn(shell("stty -a; stty echo", mode="pty", modes=[(53, 0), (1, 7)]))
    said = await read_until(process.fds[0])
    assert b" -echo " in said and b"intr = ^G;" in said
    assert await soon(process.wait()) == Exit(0)
    close_all(process)


async def test_job_control_works_in_a_shell(sandbox: Sandbox) -> None:
    argv = [(await sandbox.shells())[0], "--norc", "-i"]
    env = {**ENV, "PS1": "ready> ", "TERM": "dumb", "HISTFILE": ""}
    process = await sandbox.spawn(Spawn(id="shell", argv=argv, env=env, cwd=WORKSPACE, mode="pty"))
    (master,) = process.fds
    first = await read_until(master, b"ready> ")
    assert b"no job control" not in first
    os.write(master, b"sh -c 'echo up; exec sleep 600'\n")
    await read_until(master, b"\nup\r\n")
    os.write(master, b"\x03")
    await read_until(master, b"ready> ")
    os.write(master, b"echo $?\n")
    assert b"\n130\r\n" in await read_until(master, b"130\r\nready> ")
    os.write(master, b"exit 12\n")
    assert await soon(process.wait()) == Exit(12)
    close_all(process)


async def test_a_background_process_is_seen_by_a_later_one(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "sleep 4321 & exit 0"))[0] == 0
    _, said = await run(sandbox, "exec ps -eo args=", name="later")
    assert "sleep 4321" in said


async def test_cpu_of_what_left_its_parent_counts_with_its_session_and_what_left_that_does_not(
    sandbox: Sandbox,
) -> None:
    loop = "while :; do :; done"
    stays = await sandbox.spawn(shell(f"({loop} &) ; exec sleep 4321"))
    leaves = await sandbox.spawn(shell(f"setsid sh -c '({loop}) & exit 0'; echo up; exec sleep 4322", name="leaves"))
    await soon(leaves.grown(0))
    before = (await sandbox.cpu_seconds())["leaves"]
    async with asyncio.timeout(20):
        while (used := await sandbox.cpu_seconds())["main"] < 0.5:
            await asyncio.sleep(0.05)
    assert used["leaves"] < before + 0.1
    _, said = await run(sandbox, "exec ps -eo args=", name="ps")
    assert len([line for line in said.splitlines() if loop in line]) == 2
    for each in (stays, leaves):
        await each.signal(signal.SIGKILL)
        await soon(each.wait())


@pytest.mark.parametrize("ended", [False, True])
async def test_a_tree_is_killed_whole(sandbox: Sandbox, ended: bool) -> None:
    text = "sleep 4321 & (sleep 4322 & sleep 4323 &) ; echo up; " + ("exit 0" if ended else "exec sleep 4324")
    process = await sandbox.spawn(shell(text))
    await soon(process.grown(0))
    if ended:
        await soon(process.wait())
    await process.signal(signal.SIGKILL, tree=True)
    await soon(process.wait())
    _, said = await run(sandbox, "exec ps -eo args=", name="later")
    assert [line for line in said.splitlines() if "defunct" not in line] == [*INIT, "ps -eo args="]


async def test_a_signal_reaches_only_the_process_without_tree(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell("sleep 4321 & echo up; exec sleep 4324"))
    await soon(process.grown(0))
    await process.signal(signal.SIGTERM)
    assert await soon(process.wait()) == Exit(143, signal.SIGTERM)
    assert "sleep 4321" in (await run(sandbox, "exec ps -eo args=", name="later"))[1]


async def test_orphans_leave_no_zombies(sandbox: Sandbox) -> None:
    await run(sandbox, "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 &) ; done; sleep 0.1")
    text = "i=0; while ps -eo stat= | grep -q Z && [ $i -lt 500 ]; do sleep 0.01; i=$((i+1)); done; exec ps -eo stat="
    _, said = await run(sandbox, text, name="later")
    assert "Z" not in said


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Spawn(id="x", argv=["true"], env=ENV, cwd="/nowhere", mode="spool"), "the folder /nowhere: No such file"),
        (Spawn(id="x", argv=["/usr/bin"], env=ENV, cwd="/", mode="spool"), "/usr/bin: it may not be executed"),
        (Spawn(id="x", argv=["/no/such"], env=ENV, cwd="/", mode="pty"), "no program /no/such here"),
        (Spawn(id="x", argv=["true"], env={"PATH": "/nowhere"}, cwd="/", mode="pipes"), "PATH is /nowhere"),
        (Spawn(id="x", argv=["true", "x" * 200_000], env=ENV, cwd="/", mode="spool"), "too large together"),
        (Spawn(id="x", argv=["true"], env={"A=B": ""}, cwd="/", mode="spool"), "environment"),
        (Spawn(id="x", argv=["a\0b"], env=ENV, cwd="/", mode="spool"), "null"),
        (Spawn(id="../x", argv=["true"], env=ENV, cwd="/", mode="spool"), "cannot name a process"),
    ],
)
async def test_what_cannot_be_started_is_told(sandbox: Sandbox, request_: Spawn, text: str) -> None:
    with pytest.raises(BackendError, match=text) as failed:
        await soon(sandbox.spawn(request_))
    assert failed.value.code == "spawn_failed"
    assert await sandbox.processes() == {}


async def test_a_script_without_a_first_line_is_run_by_sh(machine: Machine, sandbox: Sandbox) -> None:
    tool = machine.folder / "job.1" / "bin" / "tool"
    tool.write_text("echo $0 $1; exit 4\n")
    tool.chmod(0o755)
    process = await sandbox.spawn(
        Spawn(id="x", argv=["tool", "one"], env={"PATH": "/opt/pitstop/bin"}, cwd="/", mode="spool")
    )
    assert await output(process) == "/opt/pitstop/bin/tool one\n"
    assert await process.wait() == Exit(4)


async def test_an_image_is_refused_where_there_are_none(machine: Machine, backend: Backend) -> None:
    with pytest.raises(
        BackendError, match=r"asks for the image debian:12, and this host .*PITSTOP_SANDBOX=docker"
    ) as no:
        await backend.create(machine.spec(image="debian:12"))
    assert no.value.code == "image_unsupported"


async def test_many_processes_at_once(sandbox: Sandbox) -> None:
    texts = {f"p{n}": f"echo {n}; exit {n}" for n in range(50)}
    ran = await asyncio.gather(*(run(sandbox, text, name=name) for name, text in texts.items()))
    assert ran == [(n, f"{n}\n") for n in range(50)]


async def test_sandboxes_of_root_have_users_of_their_own(machine: Machine, backend: Backend) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: only root can give each sandbox a user of its own")
    await asyncio.gather(*(machine.create(backend, f"{name}.1") for name in "abc"))
    owners = {(machine.folder / f"{name}.1" / "work").stat().st_uid for name in "abc"}
    assert len(owners) == 3
    assert all(210000 <= uid < 211000 for uid in owners)


async def test_a_users_range_that_is_taken_is_told(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: only root can give each sandbox a user of its own")
    backend = machine.backend(uids=range(219990, 219991))
    await machine.create(backend, "a.1")
    with pytest.raises(BackendError, match="give a larger PITSTOP_SANDBOX_UIDS"):
        await machine.create(backend, "b.1")


async def test_a_folder_may_be_deep_and_closed_to_others(machine: Machine, backend: Backend) -> None:
    deep = machine.folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    deep.parent.chmod(0o700)
    machine.folder = deep
    sandbox = await machine.create(backend)
    await backend.aclose()
    adopted = await machine.backend().adopt(machine.spec())
    assert adopted
    assert (await run(adopted, "exit 5"))[0] == 5
    await adopted.remove()
    await sandbox.remove()


async def test_a_holder_is_small(machine: Machine, sandbox: Sandbox) -> None:
    assert (await run(sandbox, "exit 0"))[0] == 0
    status = Path(f"/proc/{pids_of(machine.folder / 'job.1')[-1][0]}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident < 14_000, f"{resident} kB"
