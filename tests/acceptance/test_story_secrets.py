"""Secrets from the outside: a job gets those of its contexts, and nobody else ever does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from tests.acceptance.support.outside import PROMPT, SECONDS, Outside, Person, Place, Run, outside, running
from tests.cli_system import Terminal
from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_common.bus import Bus, connected
from pitstop_common.errors import Unavailable
from pitstop_common.limits import MAX_CONTEXT_BYTES, MAX_RUN_CONTEXTS
from pitstop_common.messages import SecretsReply, SecretsRequest, encode
from pitstop_common.sealing import BadSeal, HostKey, for_attempt

TOKEN = "tok-Zq7vLw9xPk2mRt5y"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
MARK = "nothing-hidden-here"
SHOW = (
    f'echo {MARK}; echo "it is $API_TOKEN."; echo "$PEM"; printf %s "user:$API_TOKEN" | base64; '
    'printf %s "$API_TOKEN" | base64 -w0; echo; printf "%s" "$PEM" | base64; '
    'echo "HEADER=Bearer $API_TOKEN" >> "$GITHUB_ENV"; echo "::add-mask::derived-$API_TOKEN"; '
    'echo "$API_TOKEN" >> "$GITHUB_PATH"; echo "bad $API_TOKEN" >> "$GITHUB_ENV"'
)
HAS_TOKEN = f'test "$API_TOKEN" = {TOKEN[:4]}""{TOKEN[4:]}'
"""A command that does not give the value away: it is stored."""
HAS_IT = HAS_TOKEN + ' && test "$(printf %s "$PEM" | wc -l)" = 4'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("secrets"), "--slots", "8") as made:
        set_secret(made, "deploy", "API_TOKEN", TOKEN)
        set_secret(made, "deploy", "PEM", PEM)
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


def set_secret(place: Place, context: str, name: str, value: str) -> None:
    """As people do: the value on stdin."""
    done = place.home.run("secrets", "set", context, name, stdin=value)
    assert done.returncode == 0, done.stderr
    assert value not in done.stdout + done.stderr


def pieces(value: str) -> set[bytes]:
    """What would give a value away: its lines, and the middle of its base64 at each alignment."""
    found = {line.encode() for line in value.splitlines() if "KEY--" not in line}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value.encode())
        found.add(encoded[4:24])
    return found


def files_with(folder: Path, wanted: set[bytes]) -> list[str]:
    """The files in a folder that hold one of the pieces. The system goes on working meanwhile: what goes, goes."""
    found = []
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and any(piece in path.read_bytes() for piece in wanted):
                    found.append(str(path.relative_to(folder)))
    return found


def holding(folder: Path, *values: str) -> list[str]:
    """The files in a folder that give a value away."""
    return files_with(folder, set().union(*map(pieces, values)))


async def ask(anybody: Outside, *steps: Any, actor: str = "ada", **body: Any) -> dict[str, Any]:
    """A person's request over the API: what it answers."""
    wanted = {"id": uuid.uuid4().hex, "org": "local", "project": "web", "secrets": ["deploy"],
              "steps": [{"run": step} for step in steps], **body}  # fmt: skip
    if "ssh" in wanted:
        wanted["ssh"] = {"keys": [anybody.place.person().public], **wanted["ssh"]}
    found: dict[str, Any] = await anybody.api("run", wanted, org="local", actor=actor)
    return {**found, "body": wanted}


async def request(anybody: Outside, *steps: Any, **body: Any) -> Run:
    """Ask for a run that may run."""
    found = await ask(anybody, *steps, **body)
    assert "run" in found, found
    return Run(anybody, found["body"], found["run"], found["jobs"])


async def test_a_job_has_its_secrets_and_no_disk_ever_does(anybody: Outside) -> None:
    run = await request(anybody, SHOW, HAS_IT + ' && test "$HEADER" = "Bearer $API_TOKEN"', HAS_IT,
                        ssh={"pause": "after_step", "step": 2})  # fmt: skip
    await run.paused()
    state = anybody.place.home.dir
    shown = await run.log(1)
    assert shown[:2] == [MARK, "it is ***."]
    assert any("GITHUB_ENV: bad ***" in line for line in shown), "the warning about a line that is no variable"
    assert not any(piece in "\n".join(shown).encode() for piece in pieces(TOKEN) | pieces(PEM)), shown
    assert holding(state, TOKEN, PEM) == [], "while it is paused: job folder, journal, spool, streams, logs"
    inside = await run.ssh(f"{HAS_IT} && echo same && env | grep -c ^HEADER=Bearer")
    assert inside.out.split() == ["same", "1"], inside
    assert TOKEN in (await run.ssh(f"echo typed {TOKEN}")).out, "what people type as a command is in no log"
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type("echo [$API_TOKEN]; exit\n")
        await screen.until(f"[{TOKEN}]")
        await screen.ended()
    assert await run.finished() == "success"
    await run.hear("job.finished")
    wait_until(lambda: not list((state / "sandbox" / "jobs").iterdir()), PATIENCE)
    assert holding(state, TOKEN, PEM) == []
    assert not any(piece in one.data for one in anybody.heard for piece in pieces(TOKEN) | pieces(PEM))
    seen = files_with(state / "nats", {MARK.encode()})
    assert seen, "the search finds what is there"


async def test_the_most_that_a_job_can_have_reaches_its_steps_and_shells(anybody: Outside) -> None:
    names = [f"full{number}" for number in range(MAX_RUN_CONTEXTS)]
    size = MAX_CONTEXT_BYTES // 4
    for name in names:
        for number in range(4):
            value = {"context": name, "name": f"{name}_{number}", "value": f"{number}" * size}
            assert "secrets" in await anybody.api("secrets-set", value, org="local")
    check = "&&".join(f"test ${{#{name}_{number}}} = {size} " for name in names for number in range(4))
    run = await request(anybody, check, secrets=names, ssh={"pause": "at_end"})
    await run.paused()
    assert (await run.ssh(f"{check} && echo same")).out == "same\n"
    await run.exit()
    assert await run.finished() == "success"


async def test_a_failed_run_shows_nothing_in_its_record(anybody: Outside) -> None:
    run = await request(anybody, 'echo "it is $API_TOKEN"; exit 3', ssh={"pause": "on_failure"})
    paused = await run.paused()
    assert TOKEN not in json.dumps(paused)
    with run.shell() as screen:  # the last lines of the failed step are shown at the entry
        await screen.until("it is ***")
        await screen.until(PROMPT)
        assert TOKEN not in screen.text.decode(errors="replace")
        screen.type("exit\n")
        await screen.ended()
    assert await run.finished() == "failure"
    assert TOKEN not in json.dumps(await run.status())


async def test_a_run_that_may_not_have_a_context_is_refused_before_it_starts(anybody: Outside) -> None:
    told = await ask(anybody, "true", secrets=["deploy", "nope"])
    (fault,) = told["errors"]
    assert (told["error"], fault["pointer"]) == ("secrets_refused", "/secrets/1")
    assert "no context 'nope'" in fault["message"] and "pitstop secrets set nope" in fault["message"]
    place = anybody.place
    place.home.checkout("name: ci\njobs:\n  build:\n    runs-on: default\n    steps:\n      - run: 'true'\n")
    done = place.home.run("run", "--no-wait", "--secrets", "nope")
    assert done.returncode == 4 and "/secrets/0" in done.stderr and "nothing was started" in done.stderr
    id = place.home.request("--secrets", "deploy")
    await anybody.hear("run.finished", run=id, result="success")


async def test_a_job_of_a_workflow_names_its_context_as_its_environment(anybody: Outside) -> None:
    jobs = "jobs:\n  a:\n    environment: {name: %s, url: 'https://x'}\n"
    text = jobs + "    steps:\n      - run: %s\n  b:\n    steps:\n      - run: %s\n"
    without = 'test -z "$API_TOKEN"'
    body = {"id": uuid.uuid4().hex, "org": "local", "project": "web"}
    told = await anybody.api("run", {**body, "workflow": text % ("nope", HAS_TOKEN, without)}, org="local")
    assert told["errors"][0]["pointer"] == "/workflow/jobs/a/environment", told
    found = await anybody.api("run", {**body, "workflow": text % ("deploy", HAS_TOKEN, without)}, org="local")
    await anybody.hear("run.finished", run=found["run"], result="success")
    again = await anybody.api("rerun", {"run": found["run"]}, org="local")
    await anybody.hear("run.finished", run=again["run"], result="success")


async def test_a_machine_gets_only_what_is_granted_to_it(anybody: Outside) -> None:
    set_secret(anybody.place, "nightly", "API_TOKEN", TOKEN)
    body = {"id": uuid.uuid4().hex, "org": "local", "project": "web", "actor": "ada", "secrets": ["nightly"],
            "steps": [{"run": HAS_TOKEN}]}  # fmt: skip
    async with connected(anybody.place.url("publisher"), "machine") as machine:
        await machine.nc.publish("run.requested.local", json.dumps(body).encode())
        refused = await anybody.hear("run.rejected", request=body["id"])
        assert (refused["code"], refused["errors"][0]["pointer"]) == ("secrets_refused", "/secrets/0")
        assert "pitstop secrets restrict nightly --publisher" in refused["errors"][0]["message"]
        assert anybody.place.home.json("secrets", "restrict", "nightly", "--publisher")["publisher"]
        body["id"] = uuid.uuid4().hex
        await machine.nc.publish("run.requested.local", json.dumps(body).encode())
        started = await anybody.hear("run.queued", request=body["id"])
        await anybody.hear("run.finished", run=started["run"], result="success")


@pytest.mark.parametrize("subject", ["run.requested", "run.requested.local"])
async def test_a_credential_in_a_refused_request_is_not_kept(anybody: Outside, subject: str) -> None:
    secret = f"pat-{uuid.uuid4().hex}"
    body = {"id": uuid.uuid4().hex, "org": "local", "project": "web", "steps": [{"run": "true"}],
            "source": {"git": f"https://bot:{secret}@example.org/x.git"}}  # fmt: skip
    await anybody.publish(body, subject=subject)
    refused = await anybody.hear("run.rejected", request=body["id"])
    assert secret not in json.dumps(refused) and refused["errors"][0]["pointer"] == "/source/git"
    home = anybody.place.home
    letter = home.json("dlq", "show", str(refused["dead_letter"]))
    assert secret not in json.dumps(letter) and "kept with the credential cut out" in letter["reason"]
    assert json.loads(letter["body"])["source"]["git"] == "https://***:***@example.org/x.git"
    await asyncio.to_thread(wait_until, lambda: holding(home.dir, secret) == [], 30)
    assert home.run("dlq", "replay", str(refused["dead_letter"])).returncode == 0
    await anybody.hear("run.rejected", count=2, request=body["id"])
    await (await request(anybody, "true")).finished()  # those after it are taken in


async def register(anybody: Outside, name: str) -> Person:
    person = anybody.place.person(name)
    await anybody.api("keys-add", {"key": person.public}, org="local", actor=name)
    return person


async def test_a_closed_context_admits_its_members_only(anybody: Outside) -> None:
    bob = await register(anybody, "bob")
    home = anybody.place.home
    set_secret(anybody.place, "prod", "API_TOKEN", TOKEN)
    assert home.json("secrets", "restrict", "prod", "--members", "ada", "--projects", "web")["members"] == ["ada"]
    told = await ask(anybody, "true", actor="bob", secrets=["prod"])
    assert told["error"] == "secrets_refused"
    assert "closed: bob is not a member" in told["message"] and "--members ada,bob" in told["message"]
    told = await ask(anybody, "true", secrets=["prod"], project="other")
    assert "closed to project other" in told["message"]
    for verb, body in (("rm", {}), ("set", {"name": "X", "value": "y"})):
        told = await anybody.api(f"secrets-{verb}", {"context": "prod", **body}, org="local", actor="bob")
        assert told["error"] == "denied" and "bob is not a member" in told["message"], told
    told = await anybody.api("secrets-restrict", {"context": "prod", "members": None}, org="local", actor="bob")
    assert told["error"] == "denied" and "needs the role admin" in told["message"], told
    run = await request(anybody, "true", secrets=["prod"], ssh={"pause": "at_end", "users": ["bob"]})
    await run.paused()
    denied = await run.ssh("true", person=bob)
    assert denied.status == 255 and "closed context prod" in denied.err, denied
    assert (await anybody.hear("ssh.denied", run=run.id))["reason"] == "ssh_context"
    assert (await run.ssh(HAS_TOKEN + " && echo in")).out == "in\n"
    assert home.json("secrets", "restrict", "prod", "--everybody")["members"] is None
    assert (await run.ssh("echo in", person=bob)).out == "in\n"
    await run.exit()
    assert await run.finished() == "success"


async def held_back(place: Place, name: str = "sandbox") -> None:
    """Kill a service; returns when `pitstop up` has started it again."""
    pid, before = place.pid(name), len(place.system.said())
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: f"{name} is ready again" in place.system.said()[before:], 30)


async def test_a_host_that_restarts_fetches_them_again(anybody: Outside) -> None:
    show = 'echo "before $API_TOKEN"; until [ -e go ]; do sleep 0.05; done; echo "after $API_TOKEN"'
    run = await request(anybody, show, f'{HAS_IT} && test "$HEADER" = "x$API_TOKEN"', ssh={"direct": True})  # fmt: skip
    await run.hear("step.started")
    assert (await run.ssh('echo "HEADER=x$API_TOKEN" >> $GITHUB_ENV')).status == 0
    await held_back(anybody.place)
    async with asyncio.timeout(SECONDS):
        while (await run.ssh("touch go")).status != 0:
            await asyncio.sleep(0.1)
    assert await run.finished() == "success"
    assert await run.log(1) == ["before ***", "after ***"]
    assert holding(anybody.place.home.dir, TOKEN) == []


@pytest.mark.parametrize("service", ["sandbox", "scheduler"])
async def test_a_kill_at_the_claim_costs_no_job_its_secrets(anybody: Outside, service: str) -> None:
    run = await request(anybody, HAS_IT)
    await run.hear("job.claimed")
    await held_back(anybody.place, service)
    assert await run.finished(60) == "success"


async def test_a_job_ends_clearly_when_its_secrets_are_gone_at_a_restart(anybody: Outside) -> None:
    set_secret(anybody.place, "brief", "API_TOKEN", TOKEN)
    run = await request(anybody, "sleep 600", secrets=["brief"])
    await run.hear("step.started")
    assert anybody.place.home.run("secrets", "rm", "brief").returncode == 0
    await held_back(anybody.place)
    assert await run.finished() == "error"
    entry = await run.entry(lambda found: found["job"]["status"] == "finished")
    assert entry["job"]["reason"] == "secrets_refused" and "no context 'brief'" in entry["message"], entry


async def asked(bus: Bus, question: SecretsRequest) -> Any:
    msg = await bus.request("svc.secrets", encode(question), timeout=10)
    code = (msg.headers or {}).get("Nats-Service-Error-Code")
    return code or msgspec.json.decode(msg.data, type=SecretsReply)


async def test_another_holder_of_the_hosts_credential_opens_nothing(anybody: Outside, tmp_path: Path) -> None:
    run = await request(anybody, "true", ssh={"pause": "at_end"})
    await run.paused()
    job = (await run.entry())["job"]
    real = SecretsRequest(job=run.job, attempt=1, host=job["host"], incarnation=job["incarnation"])
    async with connected(anybody.place.url("sandbox"), "thief") as thief:
        for change in ({"host": "mine"}, {"incarnation": "mine"}, {"attempt": 2}):
            assert await asked(thief, msgspec.structs.replace(real, **change)) == "409"
        assert await asked(thief, msgspec.structs.replace(real, job="aaaaaaaaaaaa-1")) == "404"
        reply = await asked(thief, real)
        purpose = for_attempt(run.job, 1, job["host"], job["incarnation"])
        with pytest.raises(BadSeal):
            HostKey.kept(tmp_path / "own.key").open(reply.sealed, purpose)
        own = HostKey.kept(anybody.place.home.dir / "sandbox" / "host.key")
        assert json.loads(own.open(reply.sealed, purpose))["API_TOKEN"] == TOKEN, "the claimant's key opens it"
        own_key = HostKey.kept(tmp_path / "own.key")
        forged = {"type": "job.claimed", "id": f"forged.{run.id}", "time": "", "org": "local", "run": run.id,
                  "project": "web", "request": "", "job": run.job, "attempt": 1, "host": "mine",
                  "incarnation": "99999999-000000", "key": own_key.public}  # fmt: skip
        await thief.store(f"job.claimed.local.{run.id}", json.dumps(forged).encode())
        mine = msgspec.structs.replace(real, host="mine", incarnation="99999999-000000")
        assert await asked(thief, mine) == "409", "who claims later has no claim"
        assert (await asked(thief, real)).key == own.public
        await run.exit()
        await run.finished()
        await run.hear("job.finished")
        assert await asked(thief, real) in {"404", "410"}


@pytest.mark.parametrize("user", ["relay", "janitor", "owner", "publisher"])
async def test_nobody_else_may_ask(place: Place, user: str) -> None:
    async with connected(place.url(user), user) as bus:
        for subject in ("svc.secrets", "$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.local.deploy",
                        "$JS.API.STREAM.MSG.GET.KV_secrets", "$JS.API.CONSUMER.CREATE.KV_secrets"):  # fmt: skip
            with pytest.raises(Unavailable):
                await bus.request(subject, b"{}", timeout=0.3)


def test_a_value_is_asked_for_without_showing_it(place: Place) -> None:
    place.home.repo.mkdir(exist_ok=True)
    terminal = Terminal(place.home, "secrets", "set", "typed", "API_TOKEN")
    terminal.wait_for("value of typed/API_TOKEN")
    terminal.type(f"{TOKEN}\n")
    assert terminal.end() == 0
    assert "set API_TOKEN" in terminal.seen and TOKEN not in terminal.seen


@pytest.mark.parametrize("user", ["sandbox", "relay", "janitor", "owner", "publisher"])
async def test_nobody_else_hears_the_question(anybody: Outside, user: str) -> None:
    place, heard = anybody.place, list[bytes]()

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    async with connected(place.url(user), user) as spy, connected(place.url("sandbox"), "host") as host:
        for subject in ("svc.secrets", "svc.>", ">"):
            await spy.nc.subscribe(subject, cb=hear)
        await spy.nc.flush()
        question = SecretsRequest(job="aaaaaaaaaaaa-1", attempt=1, host="h", incarnation="i")
        assert await asked(host, question) == "404"
        await spy.nc.flush()
    assert heard == []


async def test_names_are_listed_and_never_values(anybody: Outside) -> None:
    home = anybody.place.home
    listed = {one["context"]: one for one in home.json("secrets", "ls")["contexts"]}
    assert [(one["name"], one["by"]) for one in listed["deploy"]["secrets"]] == [("API_TOKEN", "ada"), ("PEM", "ada")]
    told = home.run("secrets", "ls", "deploy")
    assert "API_TOKEN" in told.stdout and TOKEN not in told.stdout
    assert home.run("secrets", "ls", "nope").returncode == 5
    assert home.run("secrets", "set", "deploy", "GITHUB_TOKEN", stdin="x").returncode == 2
    assert home.run("secrets", "set", "deploy", "NEW").returncode == 2
    (check,) = [one for one in home.json("doctor")["checks"] if one["name"] == "secrets"]
    assert check["state"] == "ok" and "can be used" in check["found"]


def test_no_service_complained(place: Place) -> None:
    for path in (place.home.dir / "logs").glob("*.log"):
        assert "Traceback" not in path.read_text(), path
