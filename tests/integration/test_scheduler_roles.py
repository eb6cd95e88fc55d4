"""Roles of an org at a real scheduler: what each may, and what a refusal says. The test plays the host."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.played_host import KEY, PlayedHost, Scheduler, until

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.public_keys import parse_public_key
from pitstop_common.pull import read_all
from pitstop_common.streams import DEC, EVENTS

ROLES = {"bob": "read", "carl": "write", "dora": "none", "eve": "admin"}
WEB_IS = {"roles": {"dora": "write", "carl": "read"}}


@pytest.fixture
async def scheduler(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Scheduler]:
    one = Scheduler(nats_server.url(), tmp_path, "one", admins="acme/root")
    try:
        await one.start()
        await until(lambda: takes_part(bus))
        yield one
    finally:
        status = one.end()
    assert status == 0


async def takes_part(bus: Bus) -> bool:
    return "error" not in await ask(bus, "root", "org-show")


async def ask(bus: Bus, actor: str, verb: str, of: str = "acme", **body: Any) -> Any:
    reply = await bus.request(subjects.api(of, actor, verb), json.dumps(body).encode(), timeout=6)
    return json.loads(reply.data) | {"code": (reply.headers or {}).get("Nats-Service-Error-Code")}


async def run(bus: Bus, actor: str, project: str, **more: Any) -> Any:
    return await ask(bus, actor, "run", org="acme", project=project, steps=[{"run": "true"}], **more)


async def rules(bus: Bus, **more: Any) -> None:
    told = await ask(bus, "root", "org-apply", roles=ROLES, **{"rules": {"web": WEB_IS}, **more})
    assert told["code"] is None and told["roles"] == ROLES and told["role"] == "admin"


def words(refused: Any) -> str:
    assert refused["code"] == "403", refused
    return str(refused["message"])


async def test_each_role_may_do_what_it_may(scheduler: Scheduler, bus: Bus) -> None:
    assert (await run(bus, "ada", "api", id="before"))["code"] is None  # without a table everybody has write
    assert words(await ask(bus, "ada", "org-apply")).startswith("`org-apply` in org acme needs the role admin, and ada")
    await rules(bus)
    first = await run(bus, "carl", "api", id="one")
    web = await run(bus, "dora", "web", id="two")
    assert (first["code"], web["code"]) == (None, None)

    assert "`run` in acme/api needs the role write, and bob has read" in words(await run(bus, "bob", "api"))
    assert "`run` in acme/web needs the role write, and carl has read" in words(await run(bus, "carl", "web"))
    assert "and ada has none. An admin of acme (eve) can change it" in words(await run(bus, "ada", "api"))
    assert (await ask(bus, "bob", "status", run=first["run"]))["run"]["run"] == first["run"]
    assert "`status` in acme/api needs the role read" in words(await ask(bus, "dora", "status", run=first["run"]))
    assert "`cancel` of what is carl's in acme/api" in words(await ask(bus, "bob", "cancel", run=first["run"]))
    assert [one["run"] for one in (await ask(bus, "dora", "ls"))["runs"]] == [web["run"]]
    assert len((await ask(bus, "carl", "ls"))["runs"]) == 3
    assert words(await ask(bus, "ada", "ls"))
    assert words(await ask(bus, "carl", "dlq-ls"))
    assert words(await ask(bus, "bob", "keys-add", key=KEY))
    assert (await ask(bus, "dora", "keys-add", key=KEY))["code"] is None
    assert (await ask(bus, "carl", "cancel", run=first["run"]))["ok"]
    assert (await ask(bus, "eve", "cancel", run=web["run"]))["ok"]
    assert (await ask(bus, "eve", "dlq-ls"))["letters"] == []
    assert (await ask(bus, "eve", "org-show"))["role"] == "admin"
    assert (await ask(bus, "root", "ls", of="beta"))["code"] is None  # elsewhere root is a person as any
    assert words(await ask(bus, "root", "org-apply", of="beta"))


async def test_ssh_is_refused_before_anything_runs(scheduler: Scheduler, bus: Bus) -> None:
    await rules(bus, rules={"api": {"ssh": False}, "web": {"ssh_role": "admin"}})
    wanted = {"ssh": {"pause": "at_end", "keys": [KEY]}}
    shut = await run(bus, "carl", "api", **wanted)
    assert (shut["error"], "`ssh = true` under [projects.api]" in words(shut)) == ("ssh_disabled", True)
    high = await run(bus, "carl", "web", **wanted)
    assert (high["error"], "carl has the role write in acme/web, and SSH needs admin" in words(high)) == (
        "ssh_role",
        True,
    )
    assert (await run(bus, "carl", "web"))["code"] is None

    body = {"id": "q", "org": "acme", "project": "other", "actor": "bob", "steps": [{"run": "true"}], **wanted}
    await bus.publish(subjects.RUN_REQUESTED, json.dumps(body).encode())

    async def rejected() -> Any:
        return [json.loads(one.data) for one in await read_all(bus, EVENTS, "run.rejected.>")]

    event = (await until(rejected))[0]
    assert (event["code"], event["request"]) == ("ssh_role", "q")
    assert event["errors"][0]["pointer"] == "/ssh"
    assert event["errors"][0]["message"].startswith(
        "bob has the role read in acme/other, and SSH needs write. An admin"
    )
    assert {one["project"] for one in (await ask(bus, "root", "ls"))["runs"]} == {"web"}  # nothing else has begun


async def test_the_rules_hold_at_each_login(scheduler: Scheduler, bus: Bus) -> None:
    host = PlayedHost(bus)
    await host.announce(4)
    try:
        await ask(bus, "carl", "keys-add", key=KEY)
        begun = await run(bus, "carl", "web", ssh={"pause": "at_end", "users": ["bob"]})
        assert begun["code"] is None, begun
        start = await host.take()

        async def access() -> m.AccessReply:
            asked = m.AccessRequest(job=start.job, fingerprint=parse_public_key(KEY).fingerprint)
            reply = await bus.request(subjects.service("access"), m.encode(asked), timeout=5)
            return msgspec.json.decode(reply.data, type=m.AccessReply)

        assert [key.user for key in (await access()).allowed] == ["carl"]
        await rules(bus)
        low = await access()
        assert (low.allowed, low.barrier) == ((), "ssh_role")
        assert low.barrier_text.startswith("carl has the role read in acme/web, and SSH needs write.")
        await rules(bus, rules={"web": {"ssh": False}})
        assert (await access()).barrier == "ssh_disabled"
        entry = (await ask(bus, "carl", "status", run=begun["run"]))["jobs"][0]
        assert entry["allowed"] == []
        await rules(bus, rules={})
        assert [key.user for key in (await access()).allowed] == ["carl"]
    finally:
        await host.close()


async def test_an_answer_is_never_published_where_the_asker_says(scheduler: Scheduler, bus: Bus) -> None:
    """It would be with the scheduler's rights: a reply subject could be the decision log, or another's API."""
    before = (await bus.js.stream_info(DEC)).state.last_seq
    heard: list[str] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.subject)

    for subject in ("dec.*", "api.acme.bob.>"):
        await bus.subscribe(subject, hear)
    for reply in ("dec.0", "api.acme.bob.cancel", "$JS.API.STREAM.PURGE.DEC"):
        await bus.publish(subjects.api("acme", "ada", "ls"), b"{}", reply)
    await ask(bus, "ada", "ls")  # the scheduler answers in order: it has passed over those before
    assert heard == []
    assert (await bus.js.stream_info(DEC)).state.last_seq == before


async def test_a_host_cannot_end_the_job_of_another(scheduler: Scheduler, bus: Bus) -> None:
    """All hosts have one NATS user; the log takes only what a job's claimant says."""
    host, other = PlayedHost(bus, "h1"), PlayedHost(bus, "h2")
    await host.announce(1)
    try:
        begun = await run(bus, "carl", "web")
        start = await host.take()
        await host.report(m.JobClaimed, start)
        await other.report(m.JobFinished, start, result="failure", serial=9)
        await host.report(m.SandboxReady, start)

        async def status() -> str:
            return str((await ask(bus, "carl", "status", run=begun["run"]))["jobs"][0]["job"]["status"])

        async def is_running() -> bool:
            return await status() == "running"

        await until(is_running)  # what the other said came before, and changed nothing
        await host.report(m.JobFinished, start, result="success", serial=10)

        async def is_over() -> bool:
            return await status() == "finished"

        await until(is_over)
        assert (await ask(bus, "carl", "status", run=begun["run"]))["run"]["result"] == "success"
    finally:
        await host.close()
        await other.close()
