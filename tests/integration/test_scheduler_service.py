"""The scheduler as a real process on a real server; the test plays the host."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.patience import PATIENCE
from tests.played_host import KEY, PlayedHost, Scheduler, ask, request, until

from pitstop_common import messages as m
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.pull import Pull, read_all
from pitstop_common.streams import DLQ, pool_consumer
from pitstop_scheduler.verify import check


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    one = Scheduler(nats_server.url(), tmp_path, "one", org_slots="1")
    try:
        await one.start()
        yield one
    finally:
        status = one.end() if one.process is not None else 0
    assert status == 0


@pytest.fixture
async def host(bus: Bus) -> AsyncIterator[PlayedHost]:
    played = PlayedHost(bus)
    yield played
    await played.close()


async def test_a_plain_message_becomes_one_run_and_its_slot_passes_on(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for name in ("run.queued", "run.started", "run.finished", "run.duplicate"):
        await bus.subscribe(name, hear)
    await host.announce(4)
    await bus.nc.publish("run.requested", request("one"))
    await bus.nc.publish("run.requested", request("two"))
    await bus.nc.publish("run.requested", request("one"))
    start = await host.take()
    second = (await until(lambda: ask(bus, "ls")))["jobs"]
    assert sorted(job["status"] for job in second) == ["queued", "starting"]
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)
    await host.report(m.JobFinished, start, result="success")
    await host.report(m.JobFinished, start, result="success")
    after = await host.take()
    assert after.run != start.run
    await host.report(m.JobClaimed, after)
    await host.report(m.JobFinished, after, result="failure")
    await until(lambda: heard.count("run.finished") == 2)
    assert [heard.count(name) for name in ("run.queued", "run.started", "run.duplicate")] == [2, 2, 1]
    status = await ask(bus, "status", run=after.run)
    assert (status["run"]["result"], status["jobs"][0]["job"]["status"]) == ("failure", "finished")
    checker = await until(lambda: proved(bus))
    assert len(checker.granted) == len(checker.ended) == 2


async def proved(bus: Bus) -> Any:
    """The views are written a moment after the log."""
    checker = await check(bus)
    return checker if not checker.wrong else None


async def test_a_bad_message_is_rejected_kept_and_stops_nothing(bus: Bus, scheduler: Scheduler) -> None:
    rejected = await bus.nc.subscribe("run.rejected")
    await bus.nc.flush()
    await bus.nc.publish("run.requested", b"not json")
    await bus.nc.publish("run.requested", b'{"org": "acme", "project": "web", "steps": [{"run": 5}]}')
    first = m.decode_event((await rejected.next_msg(timeout=PATIENCE)).data)
    second = m.decode_event((await rejected.next_msg(timeout=PATIENCE)).data)
    assert isinstance(first, m.RunRejected) and isinstance(second, m.RunRejected)
    by_org = {event.org: event for event in (first, second)}
    assert [fault.pointer for fault in by_org["acme"].errors] == ["/steps/0/run"]
    assert [fault.pointer for fault in by_org[""].errors] == [""]
    assert len(await read_all(bus, DLQ, None)) == 2
    letters = (await ask(bus, "dlq-ls"))["letters"]
    shown = await ask(bus, "dlq-show", seq=letters[0]["seq"])
    assert shown["body"] in {"not json", '{"org": "acme", "project": "web", "steps": [{"run": 5}]}'}
    answer = await ask(bus, "run", id="good", org="acme", project="web", steps=[{"run": "true"}])
    assert (answer["duplicate"], answer["queue_position"]) == (False, 1)
    again = await ask(bus, "run", id="good", org="acme", project="web", steps=[{"run": "true"}])
    assert (again["duplicate"], again["run"]) == (True, answer["run"])


async def test_ssh_without_a_key_is_refused_before_anything_runs(bus: Bus, scheduler: Scheduler) -> None:
    body = {"org": "acme", "project": "web", "steps": [{"run": "true"}], "ssh": {"pause": "on_failure"}}
    refused = await ask(bus, "run", **body)
    assert (refused["code"], refused["error"]) == ("403", "ssh_no_key")
    assert "pitstop keys add" in refused["message"]
    assert (await ask(bus, "keys-add", key="nonsense"))["code"] == "400"
    added = await ask(bus, "keys-add", key=KEY + " ada@laptop")
    assert [key["fingerprint"] for key in (await ask(bus, "keys-ls"))["keys"]] == [added["fingerprint"]]
    body["ssh"] = {"pause": "on_failure", "keys": [KEY]}  # the same key again: one to let in
    accepted = await ask(bus, "run", **body)
    job = accepted["jobs"]["job"] if "job" in accepted["jobs"] else next(iter(accepted["jobs"].values()))
    reply = await bus.request("svc.access", m.encode(m.AccessRequest(job=job)))
    access = msgspec.json.decode(reply.data, type=m.AccessReply)
    assert [(key.user, key.fingerprint) for key in access.allowed] == [("ada", added["fingerprint"])]


async def test_an_expired_session_frees_its_slot_and_stops_its_host(
    bus: Bus, scheduler: Scheduler, host: PlayedHost
) -> None:
    await host.announce(4)
    await ask(bus, "keys-add", key=KEY)
    ssh = {"pause": "on_failure", "connect_window": 0.5}
    await ask(bus, "run", id="a", org="acme", project="web", steps=[{"run": "false"}], ssh=ssh)
    await ask(bus, "run", id="b", org="acme", project="web", steps=[{"run": "true"}])
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)
    await host.report(m.JobPaused, start, reason="on_failure", step=1, exit_code=1, so_far="failure")
    due = Pull(bus, "TIMERS", pool_consumer("default").evolve(durable_name="t", filter_subject="fired.>"))
    (fired,) = await until(lambda: due.next(1))
    body = msgspec.json.decode(fired.data, type=m.Fired)
    expired = m.SessionExpired(id="e1", time="", org=body.org, run=body.run, job=body.job, attempt=body.attempt,
                               reason=body.reason, revision=body.revision)  # fmt: skip
    await host.say(expired)
    await due.close()
    after = await asyncio.wait_for(host.take(), PATIENCE)
    assert after.run != start.run
    (command,) = await until(lambda: host.commands.next(1))
    stop = m.decode_command(command.data)
    assert isinstance(stop, m.Stop) and (stop.job, stop.result, stop.reason) == (start.job, "failure", "connect_window")
    await command.ack()
    await host.report(m.JobFinished, start, result="cancellation")
    status = await until(lambda: finished(bus, start.run))
    assert (status["run"]["result"], status["run"]["status"]) == ("failure", "finished")


async def finished(bus: Bus, run: str) -> Any:
    status = await ask(bus, "status", run=run)
    return status if status["run"]["result"] else None


async def test_another_scheduler_takes_over_after_kill_9_and_nothing_is_lost(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path, host: PlayedHost
) -> None:
    pair = [Scheduler(nats_server.url(), tmp_path, name, org_slots="3") for name in ("one", "two")]
    for one in pair:
        await one.start()
    await host.announce(3)
    finished_runs: set[str] = set()

    async def work() -> None:
        while len(finished_runs) < 60:
            start = await host.take()
            await host.report(m.JobClaimed, start)
            await host.report(m.JobFinished, start, result="success")
            finished_runs.add(start.run)

    working = asyncio.create_task(work())
    try:
        await disturb(bus, nats_server, pair[0])
        await asyncio.wait_for(working, 30)
        await until(lambda: all_ended(bus, 60))
    finally:
        working.cancel()
        statuses = [one.end() for one in pair if one.process is not None]
    assert statuses == [0, 0]


async def disturb(bus: Bus, nats_server: EmbeddedServer, victim: Scheduler) -> None:
    """Sixty requests, while the owner of the log and then the server are killed."""
    for number in range(60):
        await bus.store_surely("run.requested", request(f"r{number}"), {"Nats-Msg-Id": f"m{number}"})
        if number == 20:
            victim.end(signal.SIGKILL)
        if number == 40:
            await victim.start()
            await nats_server.stop(signal.SIGKILL)
            await nats_server.start()


async def all_ended(bus: Bus, count: int) -> Any:
    checker = await check(bus)
    return len(checker.ended) == len(checker.granted) == count and not checker.wrong
