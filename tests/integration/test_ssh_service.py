"""The relay as its own process, with a real nats-server between it and a sandbox host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from tests.entered_jobs import LocalJob
from tests.link_tls import client_tls, make_tls
from tests.patience import PATIENCE
from tests.screens import screen
from tests.ssh_support import HOST, JOB, Access, World, allowed, make_key

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.messages import AccessReply, AccessRequest, DialRequest, SshDenied, encode
from pitstop_sandbox.link import SshHost


@dataclass
class At:
    """As the relay's own answer to `start`."""

    host: str
    port: int
    known_hosts: str


@dataclass
class Service:
    ssh: World
    process: asyncio.subprocess.Process
    ready: dict[str, object]
    bus: Bus
    environ: dict[str, str]

    async def page(self, path: str) -> str:
        url = f"{self.ready['http']}{path}"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())


@pytest.fixture
async def service(tmp_path: Path, nats_server: EmbeddedServer, bus: Bus) -> AsyncIterator[Service]:
    tls = make_tls(tmp_path / "tls")
    ada = make_key(tmp_path, "ada")
    make_key(tmp_path, "stranger")
    access = Access({JOB: AccessReply(found=True, job=JOB, org="acme", run=JOB[:12], actor="ada", status="paused",
                                      host=HOST, offers=True, allowed=(allowed("ada", ada),))})  # fmt: skip
    job = LocalJob(JOB, tmp_path)
    host = SshHost(access, lambda name: job if name == JOB else None, host=HOST, incarnation="1",
                   tls=client_tls(tls, "pitstop-host"))  # fmt: skip

    async def answer(msg: Msg) -> None:
        asked = msgspec.json.decode(msg.data, type=AccessRequest)
        await msg.respond(encode(await access.access(asked.job, asked.fingerprint, token=asked.token)))

    async def dial(msg: Msg) -> None:
        await msg.respond(encode(await host.dial(msgspec.json.decode(msg.data, type=DialRequest))))

    await bus.subscribe(subjects.service("access"), answer)
    await bus.subscribe(subjects.dial(HOST), dial)
    ready_file = tmp_path / "ready"
    environ = {**os.environ, "PITSTOP_NATS_URL": nats_server.url(), "PITSTOP_DIR": str(tmp_path / "relay"),
         "PITSTOP_READY_FILE": str(ready_file), "PITSTOP_SSH_LISTEN": "127.0.0.1:0",
         "PITSTOP_TLS_CA": str(tls / "ca.pem"), "PITSTOP_TLS_CERT": str(tls / "pitstop-relay.pem"),
         "PITSTOP_TLS_KEY": str(tls / "pitstop-relay.key")}  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pitstop_relay",
        env=environ,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            while not ready_file.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        ready = json.loads(ready_file.read_text())
        at = At(**ready["ssh"])
        (tmp_path / "known_hosts").write_text(at.known_hosts + "\n")
        made = World(None, host, job, access, at, tmp_path, CollectorRegistry(), [], [])  # type: ignore[arg-type]
        yield Service(made, process, ready, bus, environ)
    finally:
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), 35) in (0, -signal.SIGKILL)
        await host.aclose("stopped")


async def test_a_login_a_refusal_and_what_is_counted(service: Service) -> None:
    ssh = service.ssh
    denied: asyncio.Queue[Msg] = asyncio.Queue()
    await service.bus.subscribe("ssh.denied", denied.put)
    assert ssh.at.known_hosts.startswith(f"[127.0.0.1]:{ssh.at.port} ssh-ed25519 AAAA")
    assert await ssh.ssh("echo in") == (0, b"in\n", b"")
    status, _out, err = await ssh.ssh("echo in", key="stranger")
    assert status == 255
    assert b"is not registered" in err
    fact = msgspec.json.decode((await asyncio.wait_for(denied.get(), PATIENCE)).data, type=SshDenied)
    assert (fact.reason, fact.org, fact.job) == ("key_unknown", "acme", JOB)
    assert await service.page("/readyz") == "ok\n"
    page = await service.page("/metrics")
    for line in (
        'pitstop_relay_auth_total{method="publickey",result="ok"} 1.0',
        'pitstop_relay_auth_total{method="publickey",result="key_unknown"} 1.0',
        'pitstop_relay_sessions_closed_total{reason="client_exit"} 1.0',
        "pitstop_relay_sessions 0.0",
        "pitstop_relay_links 1.0",
        "pitstop_relay_session_setup_seconds_count 1.0",
    ):
        assert line in page
    info = json.loads((await service.bus.request("$SRV.INFO.pitstop-relay")).data)
    assert info["name"] == "pitstop-relay"


async def test_a_relay_that_is_stopped_tells_people_and_ends(service: Service) -> None:
    with screen(service.ssh) as person:
        person.type("echo up''now\n")
        await person.until("upnow")
        service.process.send_signal(signal.SIGTERM)
        await person.until("pitstop: this relay is being stopped. Your shell goes on; connect again in a moment.")
        assert await person.ended() == 255
    assert await asyncio.wait_for(service.process.wait(), PATIENCE) == 0
    await service.ssh.job.until("closed", "ada", "disconnect")
    assert ("shell_ended", "cut") in service.ssh.job.said


async def test_a_relay_that_is_killed_cuts_its_people_and_nothing_else(service: Service) -> None:
    with screen(service.ssh) as person:
        person.type("echo up''now\n")
        await person.until("upnow")
        service.process.send_signal(signal.SIGKILL)
        await service.ssh.job.until("shell_ended", "cut")
        await service.ssh.job.until("closed", "ada", "disconnect")
        await person.ended()
    assert await service.process.wait() == -signal.SIGKILL


async def test_ssh_audit_finds_nothing_to_fail_or_warn_of(service: Service) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssh_audit", "-j", "-p", str(service.ssh.at.port), "127.0.0.1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b""), "0: no failure, no warning"
    report = json.loads(out)
    offers = [offer for kind in ("kex", "key", "enc", "mac") for offer in report[kind]]
    assert len(offers) >= 8
    assert [offer for offer in offers if {"fail", "warn"} & set(offer["notes"])] == []
    assert report["cves"] == [] and report["recommendations"] == {}
    assert "kex-strict-s-v00@openssh.com" in {offer["algorithm"] for offer in report["kex"]}, "what Terrapin needs"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PITSTOP_TLS_CA": "/nowhere"}, "the TLS files of the link"),
        ({"PITSTOP_SSH_LISTEN": "{taken}"}, "cannot listen"),
    ],
)
async def test_wrong_settings_end_it_with_a_word(
    service: Service, tmp_path: Path, workers: str, settings: dict[str, str], said: str
) -> None:
    environ = dict(service.environ) | {"PITSTOP_RELAY_WORKERS": workers, "PITSTOP_READY_FILE": ""}
    taken = f"127.0.0.1:{service.ssh.at.port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pitstop_relay", stderr=asyncio.subprocess.PIPE,
        env=environ | {name: value.format(taken=taken) for name, value in settings.items()},
    )  # fmt: skip
    _out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 2
    assert said in err.decode() and "Traceback" not in err.decode()
