"""The contract of `Backend`, on every backend."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.contract.backend_kit import (
    BACKGROUND,
    BUSY,
    CAT,
    CATCH,
    ENV,
    EXIT_7,
    GATE,
    LINES,
    SIZE,
    SLEEP,
    Machine,
    close_all,
    output,
    read_until,
    run,
    shell,
    soon,
    until,
)

from pitstop_sandbox.backends.port import Backend, BackendError, Exit, Sandbox, Spawn


@pytest.fixture(params=["fake", "namespaces", "docker"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def work(machine: Machine) -> Path:
    return machine.folder / "job.1" / "work"


async def test_an_exit_code_is_exact(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(EXIT_7))
    assert await soon(process.wait()) == Exit(7)
    assert await soon(process.wait()) == Exit(7)


async def test_many_may_wait(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(EXIT_7))
    assert await soon(asyncio.gather(*(process.wait() for _ in range(20)))) == [Exit(7)] * 20


async def test_a_signal_ends_a_process_and_its_exit_says_so(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(SLEEP))
    assert await soon(process.grown(0)) == 3
    await process.signal(signal.SIGTERM)
    assert await soon(process.wait()) == Exit(143, signal.SIGTERM)
    await process.signal(signal.SIGTERM)


async def test_a_caught_signal_is_the_programs_own_affair(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(CATCH))
    await soon(process.grown(0))
    await process.signal(signal.SIGTERM)
    assert await soon(process.wait()) == Exit(5)
    assert await output(process) == "up\ncaught\n"


async def test_pipes_are_three_streams(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(CAT, mode="pipes"))
    stdin, stdout, stderr = process.fds
    assert process.spool is None
    os.write(stdin, b"through\n")
    os.close(stdin)
    assert await read_until(stdout) == b"out\nthrough\n"
    assert await read_until(stderr) == b"err\n"
    assert await soon(process.wait()) == Exit(3)
    os.close(stdout)
    os.close(stderr)


async def test_a_spool_holds_everything_in_order_when_wait_returns(sandbox: Sandbox) -> None:
    _, said = await run(sandbox, LINES)
    assert said.splitlines() == [f"{kind} {n}" for n in range(2000) for kind in ("line", "error")]


async def test_grown_tells_of_output_as_it_comes(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(GATE))
    assert await soon(process.grown(0)) == len("up\n")
    (work(machine) / "go").touch()
    assert await soon(process.grown(len("up\n"))) == len("up\nwent\n")
    await soon(process.wait())
    assert await soon(process.grown(10_000)) == len("up\nwent\n")


async def test_what_a_process_and_its_children_use_of_the_cpu_is_told(machine: Machine, sandbox: Sandbox) -> None:
    busy, idle = await sandbox.spawn(shell(BUSY)), await sandbox.spawn(shell(SLEEP, name="idle"))
    await soon(asyncio.gather(busy.grown(0), idle.grown(0)))

    async def used(least: float) -> Mapping[str, float]:
        while (found := await sandbox.cpu_seconds())["main"] < least:
            await asyncio.sleep(0.02)
        return found

    first = await soon(used(0.1))
    assert set(first) == {"main", "idle"}
    more = await soon(used(first["main"] + 0.1))
    assert more["idle"] == pytest.approx(first["idle"], abs=0.02) and more["idle"] < 0.1
    (work(machine) / "go").touch()
    await soon(busy.grown(len("up\n")))
    assert (await sandbox.cpu_seconds())["main"] >= more["main"]  # the child has ended, and still counts
    for process in (busy, idle):
        await process.signal(signal.SIGKILL)
        await soon(process.wait())
    assert await sandbox.cpu_seconds() == {}


async def test_an_id_is_started_once(machine: Machine, sandbox: Sandbox) -> None:
    first, second = await soon(asyncio.gather(sandbox.spawn(shell(GATE)), sandbox.spawn(shell(GATE))))
    third = await sandbox.spawn(shell(GATE))
    (work(machine) / "go").touch()
    assert [await soon(each.wait()) for each in (first, second, third)] == [Exit(0)] * 3
    fourth = await sandbox.spawn(shell(GATE))
    assert await soon(fourth.wait()) == Exit(0)
    assert (work(machine) / "started").read_text() == "once\n"


async def test_a_missing_program_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(BackendError, match="no program nosuch") as failed:
        await soon(sandbox.spawn(Spawn(id="x", argv=["nosuch"], env=ENV, cwd="/", mode="spool")))
    assert failed.value.code == "spawn_failed"
    assert await sandbox.processes() == {}


async def test_a_terminal_has_a_size_that_changes(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(SIZE, mode="pty", columns=101, rows=33))
    (master,) = process.fds
    assert b"33 101" in await read_until(master, b"33 101")
    await process.resize(44, 22)
    assert b"22 44" in await read_until(master, b"22 44")
    await process.signal(signal.SIGKILL)
    assert await soon(process.wait()) == Exit(137, signal.SIGKILL)
    close_all(process)


async def test_the_same_terminal_can_be_had_again(sandbox: Sandbox) -> None:
    first = await sandbox.spawn(shell(CAT, mode="pty"))
    second = await sandbox.spawn(shell(CAT, mode="pty"))
    close_all(first)
    (master,) = second.fds
    await read_until(master, b"err")
    os.write(master, b"again\n")
    assert b"again\r\nagain\r\n" in await read_until(master, b"again\r\nagain\r\n")
    await second.signal(signal.SIGKILL)
    await soon(first.wait())
    close_all(second)


async def test_a_background_process_outlives_its_step(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(BACKGROUND))
    assert await soon(process.wait()) == Exit(4)
    assert process.spool
    assert process.spool.read_text() == "main\n"
    (work(machine) / "stop").touch()
    spool = process.spool
    await until(lambda: spool.read_text() == "main\nlate\n", "the late output is missing")


async def test_a_cancelled_wait_ends_nothing(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(GATE))
    waiting = asyncio.create_task(process.wait())
    await soon(process.grown(0))
    waiting.cancel()
    (work(machine) / "go").touch()
    assert await soon(process.wait()) == Exit(0)


async def test_a_later_backend_adopts_what_runs(machine: Machine, backend: Backend, sandbox: Sandbox) -> None:
    await soon((await sandbox.spawn(shell(EXIT_7, name="ended"))).wait())
    await sandbox.spawn(shell(GATE))
    await backend.aclose()

    adopted = await machine.backend().adopt(machine.spec())
    assert adopted
    assert (adopted.id, adopted.notes) == (sandbox.id, sandbox.notes)
    there = await adopted.processes()
    assert {name: process.fds for name, process in there.items()} == {"ended": (), "main": ()}
    assert await soon(there["ended"].wait()) == Exit(7)
    (work(machine) / "go").touch()
    assert await output(there["main"]) == "up\nwent\n"


async def test_there_is_nothing_to_adopt_where_no_sandbox_is(
    machine: Machine, backend: Backend, sandbox: Sandbox
) -> None:
    assert await backend.adopt(machine.spec("other.1")) is None
    await sandbox.remove()
    assert await backend.adopt(machine.spec()) is None


async def test_one_sandbox_a_folder(machine: Machine, backend: Backend, sandbox: Sandbox) -> None:
    with pytest.raises(BackendError, match="adopt it, or remove it"):
        await backend.create(machine.spec())
    assert (await run(sandbox, EXIT_7))[0] == 7


async def test_remove_ends_everything_and_keeps_what_is_not_its_own(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(SLEEP))
    waiting = asyncio.create_task(process.wait())
    await soon(process.grown(0))
    (work(machine) / "kept").touch()
    await soon(sandbox.remove())
    await soon(sandbox.remove())
    with pytest.raises(BackendError) as gone:
        await soon(waiting)
    assert gone.value.code == "sandbox_lost"
    assert machine.living() == []
    assert sorted(each.name for each in work(machine).parent.iterdir()) == ["bin", "job", "work"]
    assert (work(machine) / "kept").exists()


async def test_a_lost_sandbox_says_so_to_all_who_wait(machine: Machine, sandbox: Sandbox) -> None:
    process = await sandbox.spawn(shell(SLEEP))
    waiting = asyncio.create_task(process.wait())
    lost = asyncio.create_task(sandbox.lost())
    await soon(process.grown(0))
    assert not lost.done()
    await machine.lose(sandbox)
    assert (await soon(lost)).code == "sandbox_lost"
    with pytest.raises(BackendError) as gone:
        await soon(waiting)
    assert gone.value.code == "sandbox_lost"
    with pytest.raises(BackendError, match=r".") as refused:
        await sandbox.spawn(shell(EXIT_7, name="more"))
    assert refused.value.code == "sandbox_lost"
    await until(lambda: not machine.living(), "the sandbox outlives its holder")
    await sandbox.remove()


async def test_shells_are_named_with_their_paths(sandbox: Sandbox) -> None:
    found = await sandbox.shells()
    assert [path.rsplit("/", 1)[1] for path in found] in (["bash", "sh"], ["sh"])
    assert all(path.startswith("/") for path in found)


async def test_a_backend_lists_what_lives_and_is_its_own(machine: Machine, backend: Backend) -> None:
    root = machine.folder.parent
    assert machine.folder not in {folder.parent for folder in await backend.mine(root)}
    await machine.create(backend)
    lost = await machine.create(backend, "job.2")
    others = machine.folder / "job.3" / "holder"
    others.mkdir(parents=True)
    (others / "lock").touch()
    (others / "state.json").write_text("{}")
    mine = {machine.folder / name: name for name in ("job.1", "job.2")}
    assert await machine.backend().mine(root) == mine, "whoever made it"
    await machine.lose(lost)
    del mine[machine.folder / "job.2"]
    async with asyncio.timeout(20):
        while await backend.mine(root) != mine:
            await asyncio.sleep(0.01)
    assert (others / "state.json").exists()
