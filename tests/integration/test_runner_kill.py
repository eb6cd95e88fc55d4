"""kill -9 of the host process wherever it may be: the next one goes on, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.jobs import DEADLINE, JOB, Store, run_of, step, until

from pitstop_common.messages import encode
from pitstop_common.spec import PausePlan, RunSpec, Source
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import SandboxSpec

ROOT = Path(__file__).parents[2]
MANY = 4000


class Hosts:
    """One job, and the processes that drive it one after another."""

    def __init__(self, folder: Path) -> None:
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
            stdin=asyncio.subprocess.PIPE, cwd=ROOT,
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


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    hosts = Hosts(tmp_path)
    yield hosts
    await hosts.kill()
    backend = NamespacesBackend()
    left = await backend.adopt(SandboxSpec(id=f"{JOB}.1", folder=hosts.folder))
    if left is not None:
        await left.remove()
    await backend.aclose()


def once(store: Store) -> None:
    """Facts are numbered without a gap that a lost fact would leave: notes take numbers too, so: rising, unique."""
    numbers = [int(fact["id"].rpartition(".")[2]) for fact in store.facts()]
    assert numbers == sorted(set(numbers))
    assert store.types().count("job.finished") == 1
    assert store.types().count("sandbox.ready") == 1


async def test_in_the_middle_of_a_step_again_and_again(hosts: Hosts) -> None:
    script = (
        f"i=0; while [ $i -lt {MANY} ]; do echo line $i; i=$((i+1)); [ $((i % 40)) = 0 ] && sleep 0.02; done; exit 7"
    )
    run = run_of(f"echo started >>$HOME/count; {script}", step("cat ~/count", condition="always"))
    await hosts.start(run)
    for part in (1, MANY // 3, MANY // 2):
        await hosts.when(lambda part=part: len(hosts.store.log(1)) >= part)  # type: ignore[misc]
        await hosts.kill()
        await hosts.start()
    await hosts.end()
    assert hosts.store.log(1) == [f"line {number}" for number in range(MANY)]
    assert hosts.store.log(2) == ["started"]
    report = hosts.store.report()
    assert [(entry.result, entry.exit_code, entry.attempts) for entry in report.steps] == [
        ("failure", 7, 1),
        ("success", 0, 1),
    ]
    once(hosts.store)
    assert hosts.store.last("job.finished")["incarnation"] == f"i{hosts.count}"


async def test_while_nobody_drives_the_step_ends_and_the_next_begins_later(hosts: Hosts) -> None:
    await hosts.start(run_of("echo a; until test -e go; do sleep 0.01; done; echo b; touch ended", "echo c"))
    await hosts.when(lambda: hosts.store.log(1) == ["a"])
    await hosts.kill()
    (hosts.folder / "work/go").touch()
    await until((hosts.folder / "work/ended").exists)
    await hosts.start()
    await hosts.end()
    assert (hosts.store.log(1), hosts.store.log(2)) == (["a", "b"], ["c"])
    once(hosts.store)


async def test_in_a_pause_with_somebody_inside(hosts: Hosts) -> None:
    await hosts.start(run_of("echo x >f; exit 1", step("cat f", condition="always"), pause=PausePlan(on_failure=True)))
    await hosts.when(lambda: "job.paused" in hosts.store.types())
    hosts.say("enter s1")
    await hosts.when(lambda: "ssh.connected" in hosts.store.types())
    await hosts.kill()
    await hosts.start()
    await hosts.when(lambda: hosts.store.types().count("job.paused") == 2)
    closed = hosts.store.last("ssh.closed")
    assert (closed["session"], closed["reason"], closed["left"]) == ("s1", "disconnect", 0)
    hosts.say("resume")
    await hosts.end()
    assert hosts.store.log(2) == ["x"]
    assert hosts.store.last("job.resumed")["choice"] == "expired"
    once(hosts.store)


async def test_a_retry_goes_on_and_its_asker_gets_the_answer(hosts: Hosts) -> None:
    script = "echo try; test -e ~/asked || { touch ~/asked; exit 1; }; "
    script += "until test -e go; do sleep 0.01; done; echo fixed"
    await hosts.start(run_of(script, "true", pause=PausePlan(on_failure=True)))
    await hosts.when(lambda: "job.paused" in hosts.store.types())
    box = hosts.folder / "job"
    await until((box / "open").exists)
    (box / "requests/r1").write_text("verb=retry\nsession=\n")
    await hosts.when(lambda: hosts.store.log(1, 2) == ["try"])
    await hosts.kill()
    await hosts.start()
    (hosts.folder / "work/go").touch()
    await until((box / "replies/r1").exists)
    assert (box / "replies/r1").read_text().startswith("0\n")
    hosts.say("resume")
    await hosts.end()
    assert hosts.store.log(1, 2) == ["try", "fixed"]
    assert hosts.store.report().steps[0].attempts == 2
    once(hosts.store)


async def test_a_killed_sandbox_is_said_to_be_lost(hosts: Hosts) -> None:
    await hosts.start(run_of("echo a; sleep 300"))
    await hosts.when(lambda: hosts.store.log(1) == ["a"])
    await hosts.kill()
    backend = NamespacesBackend()
    left = await backend.adopt(SandboxSpec(id=f"{JOB}.1", folder=hosts.folder))
    assert left is not None
    await left.remove()
    await backend.aclose()
    await hosts.start()
    await hosts.end()
    end = hosts.store.last("job.finished")
    assert (end["result"], end["reason"]) == ("error", "host_restarted")
    once(hosts.store)


async def test_at_the_start_and_in_a_checkout(hosts: Hosts, tmp_path: Path) -> None:
    git = tmp_path / "origin"
    for command in (
        ["init", "-q", "-b", "main", str(git)],
        ["-C", str(git), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        process = await asyncio.create_subprocess_exec("git", *command)
        assert await process.wait() == 0
    run = run_of(step(kind="checkout"), "git log --format=%s", source=Source(git=str(git)))
    await hosts.start(run)
    await until((hosts.folder / "journal").exists)
    await hosts.kill()
    await hosts.start()
    await hosts.when(lambda: "step.started" in hosts.store.types())
    await hosts.kill()
    await hosts.start()
    await hosts.end()
    assert hosts.store.log(2) == ["first"]
    assert hosts.store.last("job.finished")["result"] == "success"
    once(hosts.store)
