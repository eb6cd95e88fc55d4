"""A host and the secrets of its jobs: asked for by the claimant, until there is an answer, and kept in memory."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import nats.micro
import pytest
from nats.micro.request import Request
from tests.sandbox_hosts import JOB, Scheduler, Stage, eventually, host, view

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import JobClaimed, JobFinished, SecretsReply, SecretsRequest, StepStarted, encode
from pitstop_common.sealing import for_attempt, seal

VALUES = {"API_TOKEN": "tok-Zq7vLw9xPk2m", "SHORT": "xyz"}


class Giver:
    """Plays the scheduler's half: answers with the codes it was told, then with the secrets."""

    def __init__(self, bus: Bus) -> None:
        self.asked: list[SecretsRequest] = []
        self.codes: list[str] = []
        self.change: Callable[[SecretsReply], SecretsReply] = lambda reply: reply
        self.scheduler = Scheduler(bus)

    async def answer(self, request: Request) -> None:
        asked = msgspec.json.decode(request.data, type=SecretsRequest)
        self.asked.append(asked)
        if self.codes:
            await request.respond_error(self.codes.pop(0), "not for you")
            return
        facts = [fact for fact in await self.scheduler.facts() if isinstance(fact, JobClaimed)]
        purpose = for_attempt(asked.job, asked.attempt, asked.host, asked.incarnation)
        sealed = seal(msgspec.json.encode(VALUES), facts[0].key, purpose)
        await request.respond(encode(self.change(SecretsReply(key=facts[0].key, sealed=sealed))))


@pytest.fixture
async def giver(bus: Bus) -> AsyncIterator[Giver]:
    played = Giver(bus)
    service = await nats.micro.add_service(bus.nc, name="test-giver", version="0.0.1")
    await service.add_endpoint(name="secrets", subject=subjects.service("secrets"), handler=played.answer)
    async with played.scheduler.answering():
        yield played
    await service.stop()


def on_disk(folder: Path) -> list[str]:
    """Files that hold the secret."""
    wanted = (VALUES["API_TOKEN"].encode(), base64.b64encode(VALUES["API_TOKEN"].encode())[:16])
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [str(path) for path in paths if any(piece in path.read_bytes() for piece in wanted)]


async def test_it_asks_until_the_log_has_its_claim(nats_server: EmbeddedServer, giver: Giver, tmp_path: Path) -> None:
    giver.codes = ["409", "503", "404"]
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave"):
        await giver.scheduler.start("show API_TOKEN\nshow SHORT", "wait go\nshow API_TOKEN", secrets=("deploy",))
        await giver.scheduler.until(StepStarted, count=2)
        assert len(giver.asked) == 4 and len({(one.host, one.incarnation) for one in giver.asked}) == 1
        assert on_disk(tmp_path / "a") == [], "not even the raw output of the step that is over"
    async with host(nats_server.url(), tmp_path / "a", stage):
        stage.open("go")
        assert (await giver.scheduler.until(JobFinished)).result == "success"
        assert await giver.scheduler.output() == ["***", "xyz", "***"]
    assert len(giver.asked) == 5 and giver.asked[-1].incarnation > giver.asked[0].incarnation
    first, second = [fact.key for fact in await giver.scheduler.facts() if isinstance(fact, JobClaimed)]
    assert first == second and len(base64.b64decode(first)) == 32, "the host keeps its key"


@pytest.mark.parametrize("status", ["finished", "stopping", "running"])
async def test_what_a_job_printed_without_its_host_is_masked_or_not_shown(
    nats_server: EmbeddedServer, giver: Giver, tmp_path: Path, status: Any
) -> None:
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage, jobs_at_stop="leave"):
        await giver.scheduler.start("wait go\nshow API_TOKEN\nwait on", secrets=("deploy",))
        await giver.scheduler.until(StepStarted)
    stage.open("go")

    async def printed() -> bool:
        return bool(on_disk(tmp_path / "a"))

    await eventually(printed, "the raw output")
    giver.scheduler.views[JOB] = view(status, result="" if status == "running" else "cancellation")
    asked = len(giver.asked)
    async with host(nats_server.url(), tmp_path / "a", stage):
        stage.open("on")
        ended = await giver.scheduler.until(JobFinished)
    assert ended.result == ("success" if status == "running" else "cancellation")
    assert await giver.scheduler.output() == (["***"] if status == "running" else [])
    assert len(giver.asked) == asked + (status == "running") and on_disk(tmp_path / "a") == []


@pytest.mark.parametrize("code", ["403", "410", "400"])
async def test_a_no_ends_the_job_before_its_first_step(
    nats_server: EmbeddedServer, giver: Giver, tmp_path: Path, code: str
) -> None:
    giver.codes = [code]
    stage = Stage()
    async with host(nats_server.url(), tmp_path / "a", stage) as here:
        await giver.scheduler.start("echo never", secrets=("deploy",))
        ended = await giver.scheduler.until(JobFinished)
        assert (ended.result, ended.reason) == ("error", "secrets_refused") and "not for you" in ended.message
        assert (
            stage.ran == [] and here.value("pitstop_sandbox_errors_total", op="run", error_type="secrets_refused") == 1
        )

        async def gone() -> bool:
            return not list((tmp_path / "a" / "jobs").iterdir())

        await eventually(gone, "the folder's end")


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: msgspec.structs.replace(reply, sealed=reply.sealed[:-1] + b"x"),
        lambda reply: msgspec.structs.replace(reply, key=base64.b64encode(bytes(32)).decode()),
    ],
)
async def test_what_does_not_open_ends_the_job(
    nats_server: EmbeddedServer, giver: Giver, tmp_path: Path, change: Any
) -> None:
    giver.change = change
    async with host(nats_server.url(), tmp_path / "a", Stage()):
        await giver.scheduler.start("echo never", secrets=("deploy",))
        assert (await giver.scheduler.until(JobFinished)).reason == "secrets_refused"


async def test_a_job_without_secrets_asks_for_none(nats_server: EmbeddedServer, giver: Giver, tmp_path: Path) -> None:
    async with host(nats_server.url(), tmp_path / "a", Stage()):
        await giver.scheduler.start("echo one")
        assert (await giver.scheduler.until(JobFinished)).result == "success"
    assert giver.asked == []
