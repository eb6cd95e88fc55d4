"""A host ends and removes what nobody has in hand, at its start and each minute; and nothing that is not Pitstop's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.sandbox_hosts import JOB, ORG, RUN, Scheduler, Stage, eventually, host, view

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import Heartbeat, JobFinished, Start, StepStarted
from pitstop_sandbox.backends.fake import FakeBackend
from pitstop_sandbox.backends.port import SandboxSpec
from pitstop_sandbox.claims import Folders

KEY = f"{JOB}.1"
OTHER = f"{RUN}-7"


@pytest.fixture
async def scheduler(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scheduler]:
    monkeypatch.setattr("pitstop_sandbox.hosting.leftovers.SWEEP_EVERY", 0.1)
    played = Scheduler(bus)
    async with played.answering():
        yield played


def foreign(root: Path) -> list[Path]:
    """What somebody else keeps in the host's folders."""
    made = [
        root / "jobs" / "notes",
        root / "jobs" / f"{JOB}.1.backup",
        root / "gone" / "kept",
        root / "jobs" / "Job-1.1",
    ]
    for folder in made:
        folder.mkdir(parents=True)
        (folder / "precious").write_text("mine")
    loose = root / "jobs" / "README"
    loose.write_text("mine")
    return [*made, loose]


async def test_leftovers_go_each_minute_and_what_is_not_pitstops_stays(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    root, stage = tmp_path / "a", Stage()
    kept = foreign(root)
    scheduler.views[OTHER] = view("finished", job=OTHER, result="success")
    async with host(nats_server.url(), root, stage, host_id="host-a") as here:
        await scheduler.start("wait go")
        await scheduler.until(StepStarted)
        folders = Folders(root)
        (root / "jobs" / f"{OTHER}.3").mkdir()  # without a note: nothing says what it is for
        folders.make(Start(org=ORG, run=RUN, job=OTHER, attempt=1), "")  # its job has ended
        aside = root / "gone" / f"{OTHER}.2-0123abcd"
        aside.mkdir()
        await FakeBackend(stage.machine).create(SandboxSpec(id=f"{OTHER}.2", folder=aside))

        async def gone() -> bool:
            left = {one.name for one in (root / "jobs").iterdir()} & {f"{OTHER}.1", f"{OTHER}.3"}
            return not left and not aside.exists() and len(stage.machine.sandboxes) == 1

        await eventually(gone, "the end of the leftovers")
        assert here.value("pitstop_sandbox_swept_total", kind="folder", reason="ended") == 1
        assert here.value("pitstop_sandbox_swept_total", kind="folder", reason="no_owner") == 1
        assert here.value("pitstop_sandbox_swept_total", kind="sandbox", reason="no_owner") == 1
        stage.open("go")
        assert (await scheduler.until(JobFinished)).result == "success"
    assert all(one.exists() for one in kept)


async def test_an_attempt_that_is_still_wanted_is_taken_up_again(
    nats_server: EmbeddedServer, scheduler: Scheduler, tmp_path: Path
) -> None:
    """A folder with a sound note, that somehow fell out of the host's hands."""
    root = tmp_path / "a"
    async with host(nats_server.url(), root, Stage(), host_id="host-a"):
        start = await scheduler.start("echo one")
        await scheduler.until(JobFinished)
        again = msgspec.structs.replace(start, attempt=2)
        scheduler.views[JOB] = view("starting", attempt=2)
        Folders(root).make(again, "")

        async def both() -> bool:
            return (await scheduler.kinds()).count("JobFinished") == 2

        await eventually(both, "the end of the second attempt")
    assert await scheduler.waiting() == 0


async def test_what_cannot_be_decided_stays_and_is_in_the_heartbeat(
    nats_server: EmbeddedServer, bus: Bus, scheduler: Scheduler, tmp_path: Path
) -> None:
    """No scheduler answers: nothing is removed."""
    root = tmp_path / "a"
    scheduler.views[OTHER] = view("finished", job=OTHER)
    other = Scheduler(bus)
    async with host(nats_server.url(), root, Stage(), host_id="host-a", heartbeat_interval=0.05):
        scheduler.mute = True
        Folders(root).make(Start(org=ORG, run=RUN, job=OTHER, attempt=1), "")

        async def told() -> bool:
            entry = await Bucket(bus, "hosts").get("host-a")
            beat = msgspec.json.decode(entry.value or b"", type=Heartbeat) if entry else None
            return beat is not None and beat.leftovers == (("folder", f"{OTHER}.1"),)

        await eventually(told, "the leftover in the heartbeat")
        assert (root / "jobs" / f"{OTHER}.1").exists()
        scheduler.mute = False

        async def gone() -> bool:
            return not (root / "jobs" / f"{OTHER}.1").exists()

        await eventually(gone, "its end when a scheduler answers")
    assert await other.kinds() == []
