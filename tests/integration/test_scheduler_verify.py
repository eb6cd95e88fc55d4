"""`pitstop verify` on what is stored: an honest system is proved, and what somebody changed is told with its place."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import msgspec
import pytest
from tests.honest_log import LOG

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import decode_job_view, decode_run_view, encode
from pitstop_common.subjects import decisions
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.verify import check_all
from pitstop_scheduler.views import job_view, run_view


@pytest.fixture(autouse=True)
def one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing trails here."""
    monkeypatch.setattr("pitstop_scheduler.verify._LOOKS", 1)
    monkeypatch.setattr("pitstop_scheduler.verify._LOOK", 0)


async def stored(bus: Bus) -> Bucket:
    """The honest log, and the read models that belong to it."""
    state = State()
    views: dict[str, msgspec.Struct] = {}
    for sequence, record in enumerate(LOG, 1):
        await bus.store(decisions(0), c.encode_record(record))
        for run in state.ending(record.published_to):
            views |= models(state, run)
        fold(state, record, sequence)
    for run in state.runs.values():
        views |= models(state, run)
    bucket = Bucket(bus, "runs")
    for key, view in views.items():
        await bucket.put(key, encode(view))
    return bucket


def models(state: State, run: Any) -> dict[str, msgspec.Struct]:
    found: dict[str, msgspec.Struct] = {f"{run.org}.{run.id}": run_view(run, state.head)}
    for job in run.jobs:
        found[f"{run.org}.{run.id}.{job}"] = job_view(state.jobs[job], run, state.head)
    return found


async def wrong(bus: Bus) -> list[str]:
    (checker,) = await check_all(bus)
    return checker.wrong


async def test_an_honest_system_is_proved_by_the_command(bus: Bus, nats_server: EmbeddedServer) -> None:
    await stored(bus)
    status, said = await command(nats_server)
    assert (status, said["wrong"], said["records"], said["from"]) == (0, [], len(LOG), 0)


async def command(server: EmbeddedServer) -> tuple[int | None, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pitstop_scheduler", "verify", "-o", "json",
        env=os.environ | {"PITSTOP_NATS_URL": server.url()}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, json.loads(out)


async def test_the_read_model_of_a_run_that_ended_long_ago_is_compared(bus: Bus) -> None:
    bucket = await stored(bus)
    entry = await bucket.get("acme.r1")
    assert entry is not None and entry.value is not None
    await bucket.put("acme.r1", encode(msgspec.structs.replace(decode_run_view(entry.value), result="failure")))
    assert await wrong(bus) == ["read model acme.r1: result is 'failure', the log has 'success'"]


@pytest.mark.parametrize(
    ("job", "fields", "said"),
    [
        ("r1-1", {"result": "error", "reason": "x"}, "result is 'error', the log has 'success'"),
        ("r2-1", {"status": "running"}, "status is 'running', the log has 'starting'"),
        ("r2-1", {"use": ""}, "use is '', the log has 'run'"),
        ("r1-2", {"host": "h9"}, "host is 'h9', the log has 'h1'"),
    ],
)
async def test_the_read_model_of_a_job_is_compared(bus: Bus, job: str, fields: dict[str, str], said: str) -> None:
    bucket = await stored(bus)
    key = f"acme.{job.partition('-')[0]}.{job}"
    entry = await bucket.get(key)
    assert entry is not None and entry.value is not None
    await bucket.put(key, encode(msgspec.structs.replace(decode_job_view(entry.value), **fields)))
    assert f"read model {key}: {said}" in await wrong(bus)


async def test_read_models_that_are_missing_broken_or_of_nobody_are_told(bus: Bus) -> None:
    bucket = await stored(bus)
    await bucket.delete("acme.r1.r1-2")
    await bucket.put("beta.r4", b"{")
    await bucket.put("acme.r77", b"{}")
    found = await wrong(bus)
    assert len(found) == 3
    assert "read model acme.r1.r1-2 is missing" in found
    assert "read model acme.r77: the log knows no such run" in found
    assert any(one.startswith("read model beta.r4 cannot be read: ") for one in found)


async def test_a_read_model_that_is_ahead_of_what_was_read_is_no_fault(bus: Bus) -> None:
    bucket = await stored(bus)
    entry = await bucket.get("acme.r2.r2-1")
    assert entry is not None and entry.value is not None
    ahead = msgspec.structs.replace(decode_job_view(entry.value), status="running", seq=len(LOG) + 1)
    await bucket.put("acme.r2.r2-1", encode(ahead))
    assert await wrong(bus) == []


async def test_a_forged_record_is_told_by_the_command_with_its_number(bus: Bus, nats_server: EmbeddedServer) -> None:
    await stored(bus)
    last = LOG[-1]
    forged = msgspec.structs.replace(
        last, number=last.number + 1, after=len(LOG), changes=(c.Granted("r1-1", 1, False, 0.0),)
    )  # fmt: skip
    await bus.store(decisions(0), c.encode_record(forged))
    status, said = await command(nats_server)
    assert status == 1
    assert said["wrong"][0].startswith(f"record {len(LOG) + 1}: job r1-1 attempt 1 is granted a second time")
