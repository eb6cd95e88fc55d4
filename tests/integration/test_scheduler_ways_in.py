"""Roles, rules of projects and contexts at each login, whatever the way in: one table, judged by relay and host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import asyncssh
import msgspec
from tests.key_server import key_server
from tests.played_host import PlayedHost, Scheduler, until
from tests.proofs import CLIENT, signed

from pitstop_cli.local.credentials import secrets_key
from pitstop_common import certificates, subjects, userauth
from pitstop_common import messages as m
from pitstop_common.bus import Bus
from pitstop_common.credentials import token_id
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.link import Open
from pitstop_relay.decide import decide
from pitstop_relay.model import Admit, Attempt, Denial
from pitstop_sandbox.grant import Granted, Refused, check

NOW = 1_700_000_000.0
ALGORITHM = "ssh-ed25519-cert-v01@openssh.com"
NAMED = ("key", "linked", "certificate", "token")
"""Each way in, by a user of that name. `act` starts the runs."""
RULES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("nothing", {}, ""),
    ("a role that is too low", {"roles": {"act": "write", "*": "read"}}, "ssh_role"),
    ("none at all", {"roles": {"act": "write"}}, "ssh_role"),
    ("a role in the project", {"roles": {"act": "write"}, "rules": {"web": {"roles": {"*": "write"}}}}, ""),
    ("a project for admins", {"rules": {"web": {"ssh_role": "admin"}}}, "ssh_role"),
    ("a project without ssh", {"rules": {"web": {"ssh": False}}}, "ssh_disabled"),
    ("another project without ssh", {"rules": {"api": {"ssh": False}}}, ""),
)
KEYS = {user: asyncssh.generate_private_key("ssh-ed25519") for user in (*NAMED, "ca")}


class Proof(NamedTuple):
    """What a relay knows of a login, and what it hands to the host."""

    attempt: Attempt
    login: Open


async def ask(bus: Bus, actor: str, verb: str, **body: Any) -> Any:
    reply = await bus.request(subjects.api("acme", actor, verb), json.dumps(body).encode(), timeout=6)
    code = (reply.headers or {}).get("Nats-Service-Error-Code")
    assert code is None, (verb, json.loads(reply.data))
    return json.loads(reply.data)


def line(user: str) -> str:
    return KEYS[user].export_public_key().decode().strip()


async def proof(bus: Bus, user: str, job: str) -> Proof:
    if user == "token":
        password = (await ask(bus, "root", "token-create", user=user, job=job))["token"]
        attempt = Attempt(job=job, fingerprint=token_id(password), password=password, client=CLIENT)
        return Proof(attempt, Open(job=job, session_id=bytes(32), token=password, client=CLIENT))
    key, blob = KEYS[user], b""
    if user == "certificate":
        made = KEYS["ca"].generate_user_certificate(
            key, "laptop", principals=["someone", "certificate"], valid_after=int(NOW - 1), valid_before=int(NOW + 1)
        )
        blob = made.public_data
    login = signed(key, job, blob=blob, algorithm=ALGORITHM if blob else "ssh-ed25519")
    attempt = Attempt(
        job=job, key=userauth.authorized(key.public_data), fingerprint=userauth.fingerprint(key.public_data),
        certificate=certificates.parse(blob) if blob else None, signature=login.signature, client=CLIENT,
    )  # fmt: skip
    return Proof(attempt, login)


async def judged(bus: Bus, proof: Proof) -> str:
    """Empty: let in, by both. Else the relay's code; the host refuses, too."""

    async def access(**said: str) -> m.AccessReply:
        asked = m.AccessRequest(job=proof.attempt.job, token=token_id(proof.login.token), **said)
        reply = await bus.request(subjects.service("access"), m.encode(asked), timeout=5)
        return msgspec.json.decode(reply.data, type=m.AccessReply)

    verdict = decide(proof.attempt, await access(fingerprint=proof.attempt.fingerprint), NOW)
    granted = check(proof.login, await access(), "h1", NOW)
    if isinstance(verdict, Admit):
        assert isinstance(granted, Granted)
        assert granted.user == verdict.user
        return ""
    assert isinstance(verdict, Denial)
    assert isinstance(granted, Refused)
    assert granted.reason == "bad_grant"
    return str(verdict.code)


async def test_the_same_rules_hold_for_every_way_in(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    keys = tmp_path / "secrets.key"
    keys.write_text(secrets_key() + "\n")
    keys.chmod(0o600)
    scheduler = Scheduler(nats_server.url(), tmp_path, "one", admins="acme/root", secrets_key_file=str(keys))
    await scheduler.start()
    host = PlayedHost(bus, "h1")
    try:
        async with key_server() as server:
            await host.announce(4)
            server.page("/linked.keys", line("linked"))
            policy = {"keys_url": server.url + "/{user}.keys", "user_ca": [line("ca")]}

            async def rules(**said: Any) -> None:
                await ask(bus, "root", "org-apply", ssh=policy, **said)

            await rules()
            await ask(bus, "key", "keys-add", key=line("key"))
            await ask(bus, "act", "secrets-set", context="prod", name="X", value="value")
            started = await begun(bus, host, ssh={"pause": "at_end", "users": list(NAMED)})
            proofs = {user: await proof(bus, user, started) for user in NAMED}
            for name, said, code in RULES:
                await rules(**said)
                assert {user: await judged(bus, each) for user, each in proofs.items()} == dict.fromkeys(NAMED, code), (
                    name
                )

            await rules()
            expired = proofs["certificate"].login.key
            good = (
                KEYS["ca"].generate_user_certificate(KEYS["certificate"], "x", principals=["certificate"]).public_data
            )
            assert await at_desk(bus, expired) == m.WhoReply()
            known = await at_desk(bus, good)
            assert known.people == (m.Person(org="acme", user="certificate"),)
            assert [job.job for job in known.jobs] == [started]
            entry = (await ask(bus, "act", "status", run=started))["jobs"][0]
            assert {one["user"] for one in entry["allowed"] if one["fingerprint"] == "certificate"} == {"act", *NAMED}

            of_act = await begun(bus, host, ssh={"pause": "at_end"})
            found = {user: await judged(bus, await proof(bus, user, of_act)) for user in NAMED}
            assert found == {"key": "not_your_run", "linked": "not_your_run", "certificate": "cert_principal",
                             "token": "not_your_run"}  # fmt: skip
            secret = await begun(bus, host, secrets=["prod"], ssh={"pause": "at_end", "users": list(NAMED)})
            inside = {user: await proof(bus, user, secret) for user in NAMED}
            assert {user: await judged(bus, each) for user, each in inside.items()} == dict.fromkeys(NAMED, "")
            await ask(bus, "root", "secrets-restrict", context="prod", members=["act"])
            assert {user: await judged(bus, each) for user, each in inside.items()} == dict.fromkeys(
                NAMED, "ssh_context"
            )
            assert await judged(bus, proofs["token"]) == ""
            await ask(bus, "token", "token-revoke", id=proofs["token"].attempt.fingerprint)
            assert await judged(bus, proofs["token"]) == "bad_token"
            crossed = msgspec.structs.replace(inside["token"].attempt, job=started)
            other = msgspec.structs.replace(inside["token"].login, job=started)
            assert await judged(bus, Proof(crossed, other)) == "token_other"
    finally:
        await host.close()
        status = scheduler.end()
    assert status == 0


async def at_desk(bus: Bus, certificate: bytes) -> m.WhoReply:
    """What `ssh relay whoami` and `ls` are answered, now."""
    mark = userauth.fingerprint(KEYS["certificate"].public_data)
    asked = m.WhoRequest(fingerprint=mark, certificate=certificate, client=CLIENT)
    told = await bus.request(subjects.service("who"), m.encode(asked), timeout=5)
    return msgspec.json.decode(told.data, type=m.WhoReply)


async def begun(bus: Bus, host: PlayedHost, **more: Any) -> str:
    """A job on the host that waits for people."""
    await ask(bus, "act", "run", org="acme", project="web", steps=[{"run": "true"}], **more)
    start = await host.take()
    await host.report(m.JobClaimed, start)
    await host.report(m.SandboxReady, start)

    async def is_running() -> bool:
        jobs = (await ask(bus, "act", "status", run=start.run))["jobs"]
        return bool(jobs[0]["job"]["status"] == "running")

    await until(is_running)
    return start.job
