"""The sandbox host as a process of its own: killed, restarted, stopped; with real sandboxes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.sandbox_hosts import RUN, Scheduler, There, eventually

from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import JobClaimed, JobFinished, StepStarted


@pytest.fixture
async def scheduler(bus: Bus) -> AsyncIterator[Scheduler]:
    played = Scheduler(bus)
    async with played.answering():
        yield played


@pytest.fixture
async def there(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[There]:
    made = There(nats_server.url(), tmp_path / "there", sandbox="namespaces", jobs_at_stop="end")
    yield made
    await made.end(signal.SIGTERM)
    assert processes_of(tmp_path) == []
    assert list((tmp_path / "there" / "state" / "jobs").iterdir()) == []


def processes_of(folder: Path) -> list[str]:
    """The processes that have to do with a folder: holders (by their files), sandboxes (by their mounts)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            files = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
            if "nats-server" not in words and str(folder) in " ".join([(entry / "mountinfo").read_text(), *files]):
                found.append(words)
    return found


async def test_a_killed_host_process_finds_its_jobs_again(there: There, scheduler: Scheduler) -> None:
    await there.start()
    await scheduler.start("for n in $(seq 40); do echo line $n; sleep 0.05; done", "echo done")
    await scheduler.until(StepStarted)
    for number in range(3):

        async def more(number: int = number) -> bool:
            return len(await scheduler.output()) > number * 8

        await eventually(more, "more output")
        await there.end(signal.SIGKILL)
        await there.start()
        await scheduler.until(JobClaimed, count=number + 2)
    ended = await scheduler.until(JobFinished)
    assert ended.result == "success", there.words()
    assert await scheduler.output() == [*(f"line {n}" for n in range(1, 41)), "done"]
    assert len({f.incarnation for f in await scheduler.facts() if isinstance(f, JobClaimed)}) == 4


async def test_a_host_killed_while_it_takes_starts_runs_each_of_them_once(
    there: There, scheduler: Scheduler, nats_server: EmbeddedServer
) -> None:
    await there.start()
    numbers = range(1, 7)
    for number in numbers:
        await scheduler.start(f"echo job {number}", number=number)
    await scheduler.until(JobClaimed)
    await there.end(signal.SIGKILL)
    await there.start()
    for number in numbers:
        ended = await scheduler.until(JobFinished, f"{RUN}-{number}", seconds=60)
        assert ended.result == "success", there.words()
        assert await scheduler.output(f"{RUN}-{number}") == [f"job {number}"]


async def test_sigterm_ends_the_jobs_with_a_reason_and_leaves_nothing(
    there: There, scheduler: Scheduler, tmp_path: Path
) -> None:
    await there.start()
    await scheduler.start("sleep 1000 & sleep 1000")
    await scheduler.until(StepStarted)

    async def two() -> bool:
        return sum("sleep 1000" in words for words in processes_of(tmp_path)) >= 2

    await eventually(two, "both processes of the step")
    assert await there.end() == 0, there.words()
    ended = await scheduler.until(JobFinished)
    assert (ended.result, ended.reason) == ("error", "host_stopped")
    assert await scheduler.rooms("host-a") == [4, 0]
    assert processes_of(tmp_path) == []


async def test_sigterm_leaves_jobs_to_the_next_process_where_it_is_told_to(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    there = There(nats_server.url(), tmp_path / "there", sandbox="namespaces", jobs_at_stop="leave")
    await there.start()
    await scheduler.start("echo one; sleep 1; echo two")
    await scheduler.until(StepStarted)
    assert await there.end() == 0, there.words()
    await there.start()
    assert (await scheduler.until(JobFinished)).result == "success"
    assert await scheduler.output() == ["one", "two"]
    assert await there.end() == 0
    assert processes_of(tmp_path) == []


async def test_a_second_process_on_the_folder_is_refused_and_harms_nothing(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    one = There(nats_server.url(), tmp_path / "there", sandbox="fake")
    two = There(nats_server.url(), tmp_path / "there", sandbox="fake")
    await one.start()
    with pytest.raises(AssertionError, match="another sandbox host uses the folder"):
        await two.start()
    await two.end()
    await scheduler.start("anything")
    assert (await scheduler.until(JobFinished)).result == "success"
    assert await one.end() == 0


async def test_wrong_settings_are_all_named_at_once(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    there = There(nats_server.url(), tmp_path / "there", capacity="many")
    with pytest.raises(AssertionError, match="PITSTOP_CAPACITY"):
        await there.start()
    assert await there.end() == 2
    there = There(nats_server.url(), tmp_path / "there", pool="No!", sandbox="vm", ssh_public="nowhere")
    with pytest.raises(AssertionError) as fault:
        await there.start()
    for name in ("PITSTOP_POOL", "PITSTOP_SANDBOX", "PITSTOP_SSH_PUBLIC"):
        assert name in str(fault.value)
    assert await there.end() == 2
