"""Contexts in their bucket, and the schedulers that keep and hand them out: real processes on a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.played_host import PlayedHost, Scheduler, ask, until

from pitstop_cli.local.credentials import secrets_key
from pitstop_common import messages as m
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import Denied, NotFound
from pitstop_common.limits import MAX_CONTEXT_BYTES, MAX_CONTEXT_LINES, MAX_SECRET_BYTES, MAX_SECRETS
from pitstop_common.sealing import HostKey, for_attempt
from pitstop_scheduler.contexts import Changer, Contexts, TooMany
from pitstop_scheduler.keyring import Keyring, read_keyring

ADA, BOB, ADMIN = Changer("ada", "write"), Changer("bob", "write"), Changer("eve", "admin")
NOW = "2026-11-21T10:00:00Z"


def contexts(bus: Bus) -> Contexts:
    return Contexts(bus, Keyring({"k1": bytes(32)}), lambda org: f"An admin of {org}")


async def test_many_who_change_one_context_at_once_lose_nothing(bus: Bus) -> None:
    each = [contexts(bus) for _ in range(4)]
    names = [f"NAME_{number}" for number in range(12)]
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(names):
            group.create_task(each[number % 4].set("acme", "deploy", name, f"value of {name}", ADA, NOW))
    assert await each[0].values("acme", "deploy") == {name: f"value of {name}" for name in names}
    assert await each[0].values("other", "deploy") == {}, "an org of its own"
    await each[1].remove("acme", "deploy", "NAME_3", ADA, NOW)
    with pytest.raises(NotFound, match="no secret NAME_3"):
        await each[2].remove("acme", "deploy", "NAME_3", ADA, NOW)
    await each[3].remove("acme", "deploy", None, ADA, NOW)
    assert await each[0].get("acme", "deploy") is None
    await each[0].set("acme", "deploy", "NEW", "value", ADA, NOW)
    assert await each[0].values("acme", "deploy") == {"NEW": "value"}


async def test_no_value_is_in_the_bucket(bus: Bus) -> None:
    await contexts(bus).set("acme", "deploy", "TOKEN", "value-of-token", ADA, NOW)
    (entry,) = (await Bucket(bus, "secrets").scan()).values()
    assert entry.value is not None and b"TOKEN" in entry.value and b"value-of-token" not in entry.value


async def test_a_closed_context_is_changed_by_members_and_admins(bus: Bus) -> None:
    kept = contexts(bus)
    await kept.restrict("acme", "prod", ADMIN, NOW, members=("ada",))
    await kept.set("acme", "prod", "TOKEN", "value", ADA, NOW)
    for change in (kept.set("acme", "prod", "TOKEN", "x", BOB, NOW), kept.remove("acme", "prod", None, BOB, NOW)):
        with pytest.raises(Denied, match="An admin of acme can change that"):
            await change
    assert await kept.values("acme", "prod") == {"TOKEN": "value"}
    await kept.set("acme", "prod", "TOKEN", "new", ADMIN, NOW)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([f"v{number}" for number in range(MAX_SECRETS + 1)], "101 secrets"),
        (["x" * (MAX_CONTEXT_BYTES // 2), "x" * (MAX_CONTEXT_BYTES // 2), "x"], "65537 bytes"),
        (["line\n" * MAX_CONTEXT_LINES, "one more"], "251 lines"),
    ],
)
async def test_a_context_has_bounds_that_are_told(bus: Bus, values: list[str], said: str) -> None:
    kept = contexts(bus)
    *fitting, last = values
    for number, value in enumerate(fitting):
        await kept.set("acme", "deploy", f"N{number}", value, ADA, NOW)
    with pytest.raises(TooMany, match=said):
        await kept.set("acme", "deploy", "LAST", last, ADA, NOW)
    assert len(await kept.values("acme", "deploy")) == len(fitting)
    await kept.set("acme", "deploy", "N0", "shorter", ADA, NOW)


def key_file(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


async def test_a_key_is_rotated_by_two_restarts(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    old, new, path = secrets_key(), secrets_key(), tmp_path / "keys"

    async def with_keys(*lines: str) -> Scheduler:
        one = Scheduler(nats_server.url(), tmp_path, "one", secrets_key_file=key_file(path, *lines))
        await one.start()
        return one

    async def all_new() -> bool:
        return bool((await ask(bus, "secrets-ls"))["old"] == 0)

    async def stored() -> set[str]:
        found = await Bucket(bus, "secrets").scan()
        kept = [json.loads(entry.value or b"{}")["secrets"] for entry in found.values()]
        return {one["value"]["key"] for each in kept for one in each.values()}

    scheduler = await with_keys(old, new)
    for name in ("A", "B"):
        await ask(bus, "secrets-set", context="deploy", name=name, value=f"value of {name}")
    assert await stored() == {old.split()[0]}
    assert scheduler.end() == 0
    scheduler = await with_keys(new, old)
    await until(all_new)
    assert await stored() == {new.split()[0]}
    assert scheduler.end() == 0
    kept = Contexts(bus, read_keyring(key_file(path, new)), str)
    assert await kept.values("acme", "deploy") == {"A": "value of A", "B": "value of B"}
    assert await kept.renew() == 0
    lost = Contexts(bus, read_keyring(key_file(path, secrets_key())), str)
    assert await lost.renew() == 0, "what no key opens stays as it is"
    assert await kept.values("acme", "deploy") == {"A": "value of A", "B": "value of B"}


async def test_without_a_key_all_of_it_is_refused(bus: Bus, nats_server: EmbeddedServer, tmp_path: Path) -> None:
    scheduler = Scheduler(nats_server.url(), tmp_path, "one")
    await scheduler.start()
    told = await ask(bus, "secrets-set", context="deploy", name="A", value="x")
    assert (told["code"], told["error"]) == ("503", "secrets_unavailable")
    assert "PITSTOP_SECRETS_KEY_FILE" in (await ask(bus, "secrets-ls"))["unusable"]
    told = await ask(bus, "run", org="acme", project="web", steps=[{"run": "x"}], secrets=["deploy"])
    assert told["errors"][0]["pointer"] == "/secrets/0" and "PITSTOP_SECRETS_KEY_FILE" in told["message"]
    assert scheduler.end() == 0


async def test_a_wrong_key_file_stops_the_start(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    scheduler = Scheduler(nats_server.url(), tmp_path, "one", secrets_key_file=key_file(tmp_path / "keys", "nonsense"))
    command = [sys.executable, "-m", "pitstop_scheduler"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=scheduler.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "new-key" in done.stderr and "nonsense" not in done.stderr, done.stderr


async def fetch(bus: Bus, start: m.Start, host: str = "h1") -> Any:
    question = m.SecretsRequest(job=start.job, attempt=start.attempt, host=host, incarnation="i1")
    msg = await bus.request("svc.secrets", m.encode(question), timeout=6)
    code = (msg.headers or {}).get("Nats-Service-Error-Code")
    return code or msgspec.json.decode(msg.data, type=m.SecretsReply)


async def test_secrets_are_given_from_the_claim_to_the_end(
    bus: Bus, nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    key, host = HostKey.kept(tmp_path / "host.key"), PlayedHost(bus)
    scheduler = Scheduler(nats_server.url(), tmp_path, "one", secrets_key_file=key_file(tmp_path / "k", secrets_key()))
    await scheduler.start()
    largest = {f"N{number}": "x" * (MAX_SECRET_BYTES // 3) for number in range(4)}
    names = [f"full{number}" for number in range(8)]
    for context in names:
        for name, value in largest.items():
            await ask(bus, "secrets-set", context=context, name=f"{context}_{name}", value=value)
    await host.announce(4)
    await ask(bus, "run", org="acme", project="web", steps=[{"run": "x"}], secrets=names)
    start = await host.take()
    assert await fetch(bus, start) == "409", "nobody has claimed it"
    waiting = asyncio.create_task(fetch(bus, start))
    await host.report(m.JobClaimed, start, key=key.public)
    reply = await waiting  # asked before the claim was said, and answered when it is decided on
    reply = await fetch(bus, start) if isinstance(reply, str) else reply
    values = json.loads(key.open(reply.sealed, for_attempt(start.job, 1, "h1", "i1")))
    assert values == {f"{context}_{name}": value for context in names for name, value in largest.items()}
    assert len(m.encode(reply)) < bus.nc.max_payload, "the most a job can have is one message"
    assert await fetch(bus, start, "other") == "409"
    await ask(bus, "secrets-restrict", context="full3", members=["bob"])
    assert await fetch(bus, start) == "403", "the actor is no member any more"
    await ask(bus, "secrets-restrict", context="full3", members=None)
    assert not isinstance(await fetch(bus, start), str)
    await host.report(m.JobFinished, start, result="success")
    await until(lambda: over(bus, start))
    await host.close()
    assert scheduler.end() == 0


async def over(bus: Bus, start: m.Start) -> bool:
    return await fetch(bus, start) in {"404", "410"}
