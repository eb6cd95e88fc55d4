"""People log in, on a real server with the users and rights as they are deployed: what they may do, and what not."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from tests.logins import Deployed, deployed, probe
from tests.played_host import KEY, until

from pitstop_cli.client import Target, connect
from pitstop_common import subjects
from pitstop_common.api import VERBS
from pitstop_common.bus import connected, inbox_prefix
from pitstop_common.errors import Unavailable
from pitstop_common.permissions import person
from pitstop_common.roles import ROLES, Role, at_least
from pitstop_common.subjects import EVENTS, FACTS
from pitstop_scheduler.callout import RENEWED, user_claims
from pitstop_scheduler.passes import Pass, digest

STEPS = [{"run": "true"}]
FORBIDDEN = (
    "run.requested", "run.requested.acme", "run.requested.other", "dec.0", "spec.acme.r", "work.pool.default",
    "work.host.h", "timer.idle.x.1", "logs.acme.r.j", "dlq.req.acme", "svc.access", "svc.job", "link.dial.h",
    "api.acme.bob.run", "api.other.ada.run", "api.acme.publisher.run", "$SRV.PING", "$SYS.REQ.USER.AUTH",
    *(f"$KV.{bucket}.acme.ada" for bucket in ("runs", "keys", "claims", "hosts", "owners", "passes")),
    *(f"{fact}.acme.r" for fact in (*FACTS, *EVENTS)),
    *(f"$JS.API.{verb}" for verb in (
        "INFO", "STREAM.INFO.LOGS", "STREAM.LIST", "STREAM.DELETE.IN", "STREAM.PURGE.DEC", "STREAM.MSG.GET.SPECS",
        "DIRECT.GET.LOGS", "DIRECT.GET.LOGS.logs.acme.r.j", "DIRECT.GET.KV_keys.$KV.keys.acme.bob",
        "CONSUMER.CREATE.LOGS", "CONSUMER.CREATE.LOGS.c.logs.acme.>", "CONSUMER.MSG.NEXT.WORK.pool-default")),
)  # fmt: skip
DEAF = (
    ">", "run.requested", "sandbox.ready", "run.*.other.*", "job.paused.other.r", "logs.acme.>", "logs.other.>",
    "api.>", "svc.>", "dec.*", "$KV.>", "$SYS.>", "$JS.>", "_INBOX.>", "_INBOX_owner.>", "_INBOX_pass.>",
    "_INBOX_pass.login-x.>", "_INBOX_scheduler.>", "work.>", "spec.>",
)  # fmt: skip


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Deployed]:
    async with deployed(tmp_path) as made:
        yield made


async def test_a_person_says_and_hears_what_is_theirs_and_nothing_else(system: Deployed) -> None:
    url = await system.login("ada")
    async with probe(url) as it:
        for subject in FORBIDDEN:
            await it.client.publish(subject, b"{}")
        assert await it.settled() == {subject.lower() for subject in FORBIDDEN}
    async with probe(url) as it:
        for subject in DEAF:
            await it.client.subscribe(subject)
        assert await it.settled() == {subject.lower() for subject in DEAF}
    async with probe(url) as it:
        for subject in ("run.*.acme.*", "session.expired.acme.r", f"{inbox_prefix(url)}.x"):
            await it.client.subscribe(subject)
        assert await it.settled() == set()
    async with connected(system.server.url("scheduler"), "test") as bus:
        for stream in ("REQ", "REQ_ORG", "IN", "WORK", "LOGS", "KV_keys"):
            assert (await bus.js.stream_info(stream)).state.messages == 0


async def test_who_asks_is_who_logged_in(system: Deployed) -> None:
    async with connected(await system.login("ada"), "ada") as ada, connected(await system.login("bob"), "bob") as bob:
        body: dict[str, Any] = {"org": "acme", "project": "web", "steps": STEPS}
        reply = await ada.request(subjects.api("acme", "ada", "run"), json.dumps(body | {"actor": "bob"}).encode(), 6)
        assert "you are ada" in json.loads(reply.data)["message"]
        run = await system.ask("run", actor="ada", by=ada, **body)
        assert (await system.ask("status", actor="ada", by=ada, run=run["run"]))["run"]["actor"] == "ada"
        denied = await system.ask("cancel", actor="bob", by=bob, run=run["run"])
        assert (denied["code"], "of what is ada's" in denied["message"]) == ("403", True)
        with pytest.raises(Unavailable):  # the server itself refuses to carry it
            await ada.request(subjects.api("acme", "bob", "cancel"), json.dumps({"run": run["run"]}).encode(), 0.5)
        assert (await system.ask("cancel", actor="ada", by=ada, run=run["run"]))["ok"]
    async with connected(await system.login("eve", of="rival"), "eve") as eve:
        for verb in ("status", "logs", "cancel"):
            assert (await system.ask(verb, actor="eve", of="rival", by=eve, run=run["run"]))["code"] == "404"
        assert (await system.ask("ls", actor="eve", of="rival", by=eve, all=True))["runs"] == []


async def test_a_token_is_good_for_one_login_and_for_nothing_else(system: Deployed) -> None:
    token = await system.token("ada")
    org, user, id, own = token.split(".")
    assert (org, user) == ("acme", "ada")
    async with probe(system.url(id, own)) as it:
        forbidden = [subjects.api("acme", "ada", verb) for verb in VERBS if verb != "login"]
        for subject in forbidden:
            await it.client.publish(subject, b"{}")
        await it.client.subscribe("run.*.acme.*")
        assert await it.settled() == {*forbidden, "run.*.acme.*"}
    mine, other = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    first, again = await system.exchange(token, mine), await system.exchange(token, mine)
    assert first["code"] is None and first["id"] == again["id"]  # the answer may have been lost
    late = await system.exchange(token, other)
    assert (late["code"], "used already" in late["message"]) == ("403", True)
    assert await system.refused(system.url(first["id"], other))
    assert not await system.refused(system.url(first["id"], mine))
    for wrong in ("", "x", own + "x", token):
        assert await system.refused(system.url(id, wrong))
    async with connected(system.url(first["id"], mine), "ada") as ada:
        stolen = await system.token("bob")
        denied = await system.ask("login", actor="ada", by=ada, token=stolen, hash="0" * 64)
        assert (denied["code"], "another's" in denied["message"]) == ("403", True)


async def test_what_is_revoked_or_over_lets_nobody_in(system: Deployed) -> None:
    token = await system.token("ada")
    url = await system.login("ada")
    listed = (await system.ask("token-ls"))["passes"]
    assert [(one["kind"], one["user"], one["by"]) for one in listed] == [
        ("token", "ada", "root"), ("login", "ada", "root")
    ]  # fmt: skip
    login = listed[1]["id"]
    assert (await system.ask("token-revoke", actor="bob", id=login))["code"] == "403"
    for one in listed:
        assert (await system.ask("token-revoke", id=one["id"]))["ok"]
    assert (await system.ask("token-ls"))["passes"] == []
    assert await system.refused(url)
    assert await system.refused(system.url(*token.split(".")[2:]))
    short = await system.token("ada", ttl=1)
    await until(lambda: system.refused(system.url(*short.split(".")[2:])))
    brief = await system.login("ada", lasts=2)
    async with probe(brief) as it:
        await until(lambda: it.client.is_closed)  # the server ends the living connection too
    await until(lambda: system.refused(brief))  # JWTs count whole seconds


async def test_a_login_bound_to_a_role_is_good_for_no_more(system: Deployed) -> None:
    for role in ("read", "write"):
        async with probe(await system.login("root", role=role)) as it:  # whatever its person may
            for verb in VERBS:
                await it.client.publish(subjects.api("acme", "root", verb), b"")
            dearer = {verb for verb, rule in VERBS.items() if not at_least(role, rule.role)} | {"token-create"}
            assert await it.settled() == {subjects.api("acme", "root", verb) for verb in dearer}


async def test_tokens_of_others_are_for_admins_and_machines_have_none(system: Deployed) -> None:
    mine = await system.ask("token-create", actor="ada")
    assert (mine["code"], mine["user"]) == (None, "ada")
    denied = await system.ask("token-create", actor="ada", user="bob")
    assert (denied["code"], "`token-create` of what is bob's" in denied["message"]) == ("403", True)
    assert (await system.ask("org-apply", roles={"eve": "admin"}))["code"] is None
    assert (await system.ask("token-create", actor="eve", user="bob"))["code"] is None
    denied = await system.ask("token-create", actor="eve", user="root")  # in any org, root may limit what all share
    assert (denied["code"], "an admin of the deployment, which eve is not" in denied["message"]) == ("403", True)
    for name in ("publisher", "owner", "scheduler"):
        assert (await system.ask("token-create", user=name))["code"] == "400"
    assert (await system.ask("token-create", user="a.b"))["code"] == "400"
    assert (await system.ask("token-create", ttl=10**6))["code"] == "400"


async def test_no_stream_holds_a_secret(system: Deployed) -> None:
    token, secret = await system.token("ada"), secrets.token_urlsafe(16)
    url = system.url((await system.exchange(token, secret))["id"], secret)
    async with connected(url, "ada") as ada:
        await system.ask("run", actor="ada", by=ada, org="acme", project="web", steps=STEPS)
    assert system.scheduler.end() == 0
    await system.server.stop()
    everything = b"".join(file.read_bytes() for file in system.server.folder.rglob("*") if file.is_file())
    assert b"run.accepted" in everything and digest(secret).encode() in everything
    for word in (token, token.split(".")[3], secret):
        assert word.encode() not in everything


async def test_a_key_for_one_visit_is_forgotten(system: Deployed) -> None:
    for _ in range(30):  # however many were left behind
        await system.ask("keys-add", actor="ada", key=KEY, seconds=0.5)
    assert [key["key"] for key in (await system.ask("keys-ls", actor="ada"))["keys"]] in ([], [KEY])

    async def gone() -> bool:
        return not (await system.ask("keys-ls", actor="ada"))["keys"]

    await until(gone)
    assert (await system.ask("keys-add", actor="ada", key=KEY, seconds=601))["code"] == "400"


async def test_without_a_scheduler_services_go_on_and_people_wait(system: Deployed) -> None:
    url = await system.login("ada")
    assert system.scheduler.end() == 0
    assert not await system.refused(system.server.url("sandbox"))
    assert await system.refused(url)
    await system.scheduler.start()
    async with connected(url, "ada") as ada:
        assert (await system.ask("ls", actor="ada", by=ada))["code"] is None


async def test_a_long_command_renews_its_connection_and_loses_nothing(
    system: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_cli.client._RENEW_SECONDS", 0.2)
    heard: list[str] = []

    async def hear(msg: Msg) -> None:
        heard.append(msg.subject)

    target = Target(nats=await system.login("ada"), org="acme", actor="ada", login=True)
    async with connect(target) as client:
        await client.bus.subscribe("run.*.acme.*", hear)
        asked = 0
        while client.bus.nc.stats["reconnects"] < 3:
            assert (await client.call("ls", {}))["runs"] == []
            asked += 1
        run = await client.call("run", {"org": "acme", "project": "web", "steps": STEPS})
        await until(lambda: f"run.queued.acme.{run['run']}" in heard)
        assert asked >= 3


async def test_a_deployment_without_the_key_makes_no_tokens(tmp_path: Path) -> None:
    async with deployed(tmp_path, callout_key="") as system:
        refused = await system.ask("token-create", user="ada")
        assert (refused["code"], "PITSTOP_CALLOUT_KEY" in refused["message"]) == ("403", True)


@pytest.mark.parametrize("role", ROLES[1:])
def test_no_person_has_rights_on_streams(role: Role) -> None:
    rights = person("acme", "ada", "login-1", role, login=True)
    assert not [right for right in rights.publish if not right.startswith("api.acme.ada.")]
    assert not [right for right in rights.subscribe if ">" in right and not right.startswith("_INBOX_pass.login-1.")]


def test_a_living_connection_is_asked_about_again_soon() -> None:
    held = Pass(id="login-1", kind="login", org="acme", user="ada", hash="", created=0, expires=10_000)
    assert user_claims(held, "U", "$G", 1000.0)["exp"] == 1000 + RENEWED
    assert user_claims(held, "U", "$G", 9990.0)["exp"] == 10_000
