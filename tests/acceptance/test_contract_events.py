"""The contract, from any NATS client: plain JSON in, events on bare names out, one trace through all of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerConfig
from tests.acceptance.support.outside import NAMES, Outside, Place, outside, running, validator
from tests.patience import PATIENCE

from pitstop_common import subjects
from pitstop_common.ids import run_id

ALL = {"id", "type", "time", "request", "org", "project", "run", "job", "attempt", "cause"}
SSH = {"host", "port", "user", "command", "known_hosts", "expires"}
OF_NO_RUN = {"sandbox.room", "ssh.denied"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("contract"), "--slots", "8") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


def traceparent() -> tuple[str, str]:
    """A trace id, and a header with it."""
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{secrets.token_hex(8)}-01"


async def a_whole_story(anybody: Outside, **options: Any) -> Any:
    """A run that fails, waits, is entered and left alone, and ends by the janitor."""
    run = await anybody.request("echo begun; exit 3", ssh={"pause": "on_failure", "idle_timeout": 0.5}, **options)
    await run.paused()
    entered = asyncio.create_task(run.ssh("sleep 60"))
    await run.hear("ssh.connected")
    assert await run.finished() == "failure"
    await entered
    await run.hear("ssh.closed")
    return run


async def test_each_bare_name_is_heard_and_events_say_what_design_says(anybody: Outside) -> None:
    run = await a_whole_story(anybody)
    ready, paused = await run.hear("sandbox.ready"), await run.hear("job.paused")
    for name in NAMES:
        for event in run.all(name):
            assert event.keys() >= ALL, name
            known = (event["org"], event["project"], event["request"], event["run"])
            assert known == ("acme", "web", run.body["id"], run.id)
            assert event["type"] == name
    for event in (ready, paused):
        assert event["ssh"].keys() >= SSH
        at = anybody.place.facts["ssh"]
        assert (event["ssh"]["host"], event["ssh"]["port"], event["ssh"]["user"]) == (at["host"], at["port"], run.job)
        assert event["ssh"]["command"] == f"ssh -p {at['port']} {run.job}@{at['host']}"
        assert event["ssh"]["known_hosts"] == at["known_hosts"]
    assert paused["ssh"]["expires"] > paused["time"]
    assert (paused["reason"], paused["step"], paused["exit_code"]) == ("on_failure", 1, 3)
    (connected,) = run.all("ssh.connected")
    ada = anybody.place.person()
    assert (connected["user"], connected["fingerprint"]) == ("ada", ada.fingerprint)
    assert connected["session"] and connected["client"].startswith("127.0.0.1:")
    (expired,) = run.all("session.expired")
    assert expired["reason"] == "idle" and expired["revision"] > 0
    for name in ("run.requested", "run.queued", "sandbox.ready", "ssh.connected", "session.expired", "job.paused",
                 "run.finished"):  # fmt: skip
        heard = anybody.all("run.requested", id=run.body["id"]) if name == "run.requested" else run.all(name)
        assert len(heard) == 1, f"{name} was heard {len(heard)} times"


async def test_causes_lead_back_to_the_request(anybody: Outside) -> None:
    run = await a_whole_story(anybody)
    known = {one.body["id"]: one.body for one in anybody.heard if one.subject != "run.requested"}
    accepted = next(event for event in known.values() if event["type"] == "run.accepted" and event["run"] == run.id)
    assert accepted["cause"].startswith("REQ:")
    assert run.all("run.queued")[0]["cause"] == accepted["id"]
    (ended,) = run.all("run.finished")
    assert known[ended["cause"]]["type"] == "job.finished"
    (last,) = run.all("job.finished")
    assert last["cause"] == run.all("session.expired")[0]["id"], "what ended the job is its cause"


async def test_one_trace_from_the_request_to_the_last_event(anybody: Outside) -> None:
    trace, header = traceparent()
    run = await a_whole_story(anybody, headers={"traceparent": header})
    about = [one for one in anybody.heard if one.body.get("run") == run.id and one.subject not in OF_NO_RUN]
    assert {one.subject for one in about} >= {"run.accepted", "run.queued", "run.started", "job.claimed",
                                              "step.started", "session.expired", "run.finished"}  # fmt: skip
    assert {one.subject: one.trace for one in about} == {one.subject: trace for one in about}
    parents = {one.headers["traceparent"].split("-")[2] for one in about}
    assert header.split("-")[2] not in parents, "each hop is a span of its own"
    logged = await anybody.stored("LOGS", f"logs.acme.{run.id}.*")
    assert {message.headers["traceparent"].split("-")[1] for message in logged} == {trace}
    assert (await run.status())["run"]["trace"].split("-")[1] == trace


@pytest.mark.parametrize("name", ["Traceparent", "TRACEPARENT"])
async def test_the_name_of_the_header_may_be_in_any_letter_case(anybody: Outside, name: str) -> None:
    trace, header = traceparent()
    run = await anybody.request("true", headers={name: header})
    await run.finished()
    about = [one for one in anybody.heard if one.body.get("run") == run.id]
    assert {one.trace for one in about} == {trace}


async def test_a_request_without_a_trace_starts_one(anybody: Outside) -> None:
    run = await anybody.request("true", headers={"traceparent": "not a traceparent"})
    await run.finished()
    traces = {one.trace for one in anybody.heard if one.body.get("run") == run.id and one.subject != "run.requested"}
    assert len(traces) == 1 and len(traces.pop()) == 32


async def test_the_trace_is_in_the_work_that_hosts_take(place: Place, anybody: Outside) -> None:
    """A host of another kind, with no code of Pitstop: it announces room, takes the start, and says how it ended."""
    trace, header = traceparent()
    host = await nats.connect(place.url("sandbox"), inbox_prefix="_INBOX_sandbox")
    try:
        js = host.jetstream()
        me = {"host": "elsewhere", "incarnation": "1", "time": "2026-01-01T00:00:00Z", "attempt": 1}
        room = me | {"type": "sandbox.room", "org": "_", "run": "_", "pool": "lab", "capacity": 1, "serial": 1}
        validator("sandbox.room").validate(room | {"id": "room.1"})
        await js.add_consumer("WORK", ConsumerConfig(durable_name="pool-lab", filter_subject="work.pool.lab"))
        work = await js.pull_subscribe_bind("pool-lab", "WORK")
        await js.publish("sandbox.room._._", json.dumps(room | {"id": "room.1"}).encode())
        run = await anybody.request("true", pool="lab", headers={"traceparent": header})
        (start,) = await work.fetch(1, timeout=10)
        body = json.loads(start.data)
        validator("work.start").validate(body)
        assert (start.headers or {})["traceparent"].split("-")[1] == trace
        fact = me | {name: body[name] for name in ("org", "run", "job", "project", "request")}
        for type_, more in (("job.claimed", {}), ("job.finished", {"result": "success"})):
            message = fact | {"type": type_, "id": f"{body['job']}.{type_}", "cause": body["cause"], **more}
            validator(type_).validate(message)
            await js.publish(subjects.about(type_, body["org"], body["run"]), json.dumps(message).encode())
        await start.ack()
        assert await run.finished() == "success"
        await js.publish("sandbox.room._._",
                         json.dumps(room | {"id": "room.2", "serial": 2, "capacity": 0}).encode())  # fmt: skip
    finally:
        await host.close()


async def test_the_same_id_starts_one_run_and_the_duplicate_is_told(anybody: Outside) -> None:
    run = await anybody.request("true")
    await run.finished()
    await anybody.publish(run.body)
    await anybody.publish(run.body, subject="run.requested.acme")
    for number in (1, 2):
        told = await anybody.hear("run.duplicate", number, request=run.body["id"])
        assert (told["run"], told["org"], told["project"]) == (run.id, "acme", "web")
    assert run.id == run_id("acme", run.body["id"]), "a publisher can know it beforehand"
    other = await anybody.request("true", id=run.body["id"], org="other")
    assert other.id != run.id, "an id is the org's own"
    await other.finished()
    for name in ("run.queued", "run.started", "sandbox.ready", "run.finished"):
        assert len(run.all(name)) == 1, name


async def test_the_endpoint_takes_the_same_body_and_answers_at_once(anybody: Outside) -> None:
    body: dict[str, Any] = {"id": secrets.token_hex(8), "org": "acme", "project": "web", "steps": [{"run": "true"}]}
    first = await anybody.api("run", body)
    assert first["run"] == run_id("acme", body["id"])
    assert (first["duplicate"], first["jobs"]) == (False, {"job": f"{first['run']}-1"})
    again = await anybody.api("run", body)
    assert (again["duplicate"], again["run"]) == (True, first["run"])
    await anybody.hear("run.finished", run=first["run"])
    other = await anybody.api("run", {**body, "actor": "bob"})
    assert [fault["pointer"] for fault in other["errors"]] == ["/actor"], "nobody is somebody else"


async def test_an_id_of_jetstream_makes_a_redelivery_one_run(anybody: Outside) -> None:
    body = json.dumps({"org": "acme", "project": "web", "steps": [{"run": "true"}]}).encode()
    id_ = secrets.token_hex(8)
    first = await anybody.bus.nc.jetstream().publish("run.requested", body, headers={"Nats-Msg-Id": id_})
    again = await anybody.bus.nc.jetstream().publish("run.requested", body, headers={"Nats-Msg-Id": id_})
    assert (bool(first.duplicate), bool(again.duplicate)) == (False, True)
    await anybody.hear("run.finished", request=id_)
    assert len(anybody.all("run.queued", request=id_)) == 1


async def test_a_machine_of_one_org_is_held_to_it(place: Place, anybody: Outside) -> None:
    told = json.loads((place.home.dir / "publisher.json").read_text())
    refused: list[str] = []

    async def error(reason: Exception) -> None:
        refused.append(str(reason))

    machine = await nats.connect(told["nats"], inbox_prefix=told["inbox_prefix"], error_cb=error)
    try:
        body = {"org": "local", "project": "web", "steps": [{"run": "true"}]}
        for id_, org in (("mine", "local"), ("theirs", "acme")):
            await machine.jetstream().publish(
                "run.requested.local", json.dumps(body | {"id": id_, "org": org}).encode()
            )
        await anybody.hear("run.finished", request="mine", org="local")
        told = await anybody.hear("run.rejected", request="theirs")
        assert [fault["pointer"] for fault in told["errors"]] == ["/org"]
        assert told["org"] == "local", "the subject is what NATS vouches for"
        for subject in ("run.requested", "run.requested.acme", "api.acme.publisher.run", "session.expired.local.x"):
            with pytest.raises(NatsTimeout):
                await machine.request(subject, json.dumps(body).encode(), timeout=0.3)
        assert len(refused) == 4 and all("permissions violation" in one.lower() for one in refused), refused
    finally:
        await machine.close()


async def test_services_answer_the_nats_service_protocol(anybody: Outside) -> None:
    inbox, found = anybody.bus.nc.new_inbox(), {}

    async def answer(message: Any) -> None:
        one = json.loads(message.data)
        found[one["name"]] = one

    await anybody.bus.nc.subscribe(inbox, cb=answer)
    await anybody.bus.nc.publish("$SRV.INFO", b"", reply=inbox)
    wanted = {f"pitstop-{name}" for name in ("scheduler", "sandbox", "relay", "janitor")}
    async with asyncio.timeout(PATIENCE):
        while not wanted <= found.keys():
            await asyncio.sleep(0.02)
    assert all(one["version"] for one in found.values())


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name for name, text in logs.items() if "Traceback" in text} == set()
    assert Path(place.home.dir / "nats" / "nats.log").read_text().count("Violation") == 4
