"""One story, killed at each of its effects in turn, just before and just after it: the same facts and log come out.

Processes are played (the fake backend), so that the story can be told a hundred times. What is killed is the host
process: everything it does from that point on fails, and a new runner is made on the same folder.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from tests.jobs import DEADLINE, SETTINGS, Store, address, run_of, until

from pitstop_common.messages import Pause
from pitstop_common.spec import PausePlan
from pitstop_sandbox import control
from pitstop_sandbox.backends.fake import FakeBackend, FakeMachine, FakeSandbox
from pitstop_sandbox.backends.played import Program, Running, printing
from pitstop_sandbox.backends.port import SandboxSpec, Spawn
from pitstop_sandbox.journal import Journal
from pitstop_sandbox.outbox import Identity
from pitstop_sandbox.runner import JobRunner
from pitstop_sandbox.steps import github
from pitstop_sandbox.steps.pump import Progress

STORY = run_of("first", "fails once", "last", pause=PausePlan(on_failure=True))


PAUSE = Pause(org="acme", run="aaaaaaaaaaaa", job="aaaaaaaaaaaa-1", attempt=1, revision=1, by="ada")


class Killed(BaseException):
    """The host process is dead from here on."""


class Doom:
    """Counts effects; at the chosen one the process dies."""

    def __init__(self) -> None:
        self.fatal = 0
        self.count = 0

    def here(self) -> None:
        """One point at which a process may die."""
        self.count += 1
        if self.fatal and self.count >= self.fatal:
            raise Killed

    def around(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Die before or after each call of this."""
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.here()
            result = real(*args, **kwargs)
            self.here()
            return result

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            self.here()
            result = await real(*args, **kwargs)
            self.here()
            return result

        monkeypatch.setattr(owner, name, call_async if asyncio.iscoroutinefunction(real) else call)


async def _exporting(running: Running) -> int:
    (running.folder / "job/github/env").write_text("A=1\n")
    for number in range(30):
        running.write(b"line %d\n" % number)
    return 0


def resolve(request: Spawn) -> Program:
    """What each try of a step does."""
    if request.id == "step-1-1":
        return _exporting
    if request.id == "step-2-1":
        return printing("broken\n", code=1)
    return printing(f"A={request.env.get('A')}\n")


@pytest.fixture
def doom(monkeypatch: pytest.MonkeyPatch) -> Doom:
    found = Doom()
    monkeypatch.setattr(control, "POLL_SECONDS", 0.003)
    for owner, name in (
        (Journal, "append"), (Store, "publish"), (Progress, "set"), (control.Control, "reply"), (github, "prepare"),
        (FakeBackend, "create"), (FakeSandbox, "spawn"), (FakeSandbox, "remove"), (github, "collect"),
    ):  # fmt: skip
        found.around(monkeypatch, owner, name)
    return found


async def person(job: Path) -> None:
    """Somebody inside: goes on from a pause that was asked for, has the failed step retried, and goes on.
    Knows nothing of the host's deaths."""
    for name, verb in (("r0", "continue"), ("r1", "retry"), ("r2", "continue")):
        await until((job / "open").exists)
        (job / f"requests/.{name}").write_text(f"verb={verb}\n")
        (job / f"requests/.{name}").rename(job / f"requests/{name}")
        await until((job / "replies" / name).exists)
        assert (job / "replies" / name).read_text().startswith("0\n")


async def tell(folder: Path, doom: Doom, fatal: int) -> tuple[Store, int]:
    """The whole story, killed once. Returns what is stored, and how many effects there were."""
    store, machine = Store(folder / "store"), FakeMachine(resolve)
    doom.count, doom.fatal = 0, fatal
    inside = asyncio.create_task(person(folder / "job/job"))
    try:
        async with asyncio.timeout(DEADLINE):
            for _ in range(2):
                runner = JobRunner(
                    STORY, STORY.jobs[0], 1, folder / "job", FakeBackend(machine), store, store, Identity("h", "i"),
                    address, settings=SETTINGS,
                )  # fmt: skip
                told = asyncio.create_task(runner.pause(PAUSE))  # as a command that is not acked comes again
                with contextlib.suppress(BaseExceptionGroup, Killed):
                    await runner.run()
                with contextlib.suppress(Killed):
                    await told
                doom.fatal = 0
        await inside
    finally:
        inside.cancel()
        left = await FakeBackend(machine).adopt(SandboxSpec(id=f"{STORY.jobs[0].job}.1", folder=folder / "job"))
        if left is not None:
            await left.remove()
    assert runner.finished == "success"
    return store, doom.count


def essence(store: Store) -> list[tuple[Any, ...]]:
    """Facts without times."""
    keys = ("id", "type", "step", "attempts", "result", "exit_code", "reason", "choice", "by")
    return [tuple(fact.get(key) for key in keys) for fact in store.facts()]


def logs(store: Store) -> list[list[str]]:
    """The lines of all tries."""
    return [store.log(1), store.log(2), store.log(2, 2), store.log(3)]


async def test_killed_at_every_effect(tmp_path: Path, doom: Doom) -> None:
    (tmp_path / "whole").mkdir()
    whole, effects = await tell(tmp_path / "whole", doom, 0)
    assert [entry[1] for entry in essence(whole)] == [
        "sandbox.ready", "step.started", "job.pausing", "step.finished", "job.paused", "job.resumed", "step.started",
        "step.finished", "job.paused",
        "step.started", "step.finished", "job.resumed", "step.started", "step.finished", "job.finished",
    ]  # fmt: skip
    assert logs(whole) == [[f"line {number}" for number in range(30)], ["broken"], ["A=1"], ["A=1"]]
    assert effects > 60
    for fatal in range(1, effects + 1):
        folder = tmp_path / str(fatal)
        folder.mkdir()
        store, _ = await tell(folder, doom, fatal)
        assert essence(store) == essence(whole), f"killed at effect {fatal}"
        assert logs(store) == logs(whole), f"killed at effect {fatal}"
        assert [chunk.kind for chunk in store.chunks()].count("end") in (1, 2)
