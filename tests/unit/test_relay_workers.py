"""What several relay workers share, and what each has for itself."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pitstop_cli import pinned
from pitstop_common.config import address, load
from pitstop_common.errors import ConfigError
from pitstop_relay.config import RelayConfig
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.pages import WorkerPages, merged
from pitstop_relay.proving import MAX_AWAITED, Proving
from pitstop_relay.worker import settings
from pitstop_relay.workers import held

BASE = {"PITSTOP_NATS_URL": "nats://x", "PITSTOP_TLS_CA": "a", "PITSTOP_TLS_CERT": "b", "PITSTOP_TLS_KEY": "c"}


def of_workers(count: int, **more: str) -> list[RelayConfig]:
    environ = {**BASE, "PITSTOP_RELAY_WORKERS": str(count), **more}
    config = load(RelayConfig, environ)
    made = [settings(config, number, 2222, Path(f"/run/{number}"), environ) for number in range(1, count + 1)]
    return [load(RelayConfig, env) for env in made]


@given(st.integers(1, 64), st.integers(0, 60_000), st.integers(1, 3000), st.sampled_from(["10.0.0.1", "[::1]"]))
def test_workers_share_the_port_and_the_limits_and_have_a_link_port_each(
    count: int, port: int, limit: int, host: str
) -> None:
    workers = of_workers(
        count, PITSTOP_LINK_LISTEN=f"{host}:{port}", PITSTOP_LINK_PUBLIC=f"{host}:7000",
        PITSTOP_SSH_LISTEN=f"{host}:0", PITSTOP_SSH_MAX_CONNECTIONS=str(limit),
    )  # fmt: skip
    assert {(worker.ssh_listen, worker.ssh_reuse_port, worker.relay_workers) for worker in workers} == {
        (f"{host}:2222", True, 1)
    }
    ports = [address(worker.link_listen)[1] for worker in workers]
    assert ports == ([port + number for number in range(count)] if port else [0] * count)
    assert [address(worker.link_public)[1] for worker in workers] == [7000 + number for number in range(count)]
    assert limit <= sum(worker.ssh_max_connections for worker in workers) < limit + count
    assert len({worker.ready_file for worker in workers}) == count


class Page(msgspec.Struct):
    number: int
    ready: dict[str, Any]
    restarts: int = 0


def test_the_page_of_all_workers_has_each_family_once() -> None:
    pages = []
    for number in (1, 2):
        registry = CollectorRegistry()
        metrics = RelayMetrics(registry)
        metrics.auth.labels("publickey", "ok").inc(number)
        metrics.passed.up = 10 * number
        Gauge("odd", 'a "quoted" \\ text\nof two lines', ["name"], registry=registry).labels('"\\\n').set(number)
        Histogram("took", "Seconds", buckets=(1, 2), registry=registry).observe(1.5)
        pages.append((str(number), generate_latest(registry).decode()))
    whole = CollectorRegistry()
    whole.register(_Fixed(pages))
    text = generate_latest(whole).decode()
    assert text.count("# TYPE pitstop_relay_auth_total counter") == 1
    found = {(sample.name, sample.labels["worker"]): sample.value
             for family in text_string_to_metric_families(text) for sample in family.samples}  # fmt: skip
    assert [found["pitstop_relay_auth_total", number] for number in "12"] == [1, 2]
    assert [found["pitstop_relay_bytes_total", number] for number in "12"] == [0, 0], "the last label: down"
    assert [found["odd", number] for number in "12"] == [1, 2]
    assert found["took_count", "2"] == 1


class _Fixed(WorkerPages):
    def __init__(self, pages: list[tuple[str, str]]) -> None:
        self._pages = pages

    def collect(self) -> Any:
        return merged(self._pages)


def test_a_worker_that_does_not_answer_hides_nobody() -> None:
    registry = CollectorRegistry()
    registry.register(WorkerPages(lambda: [Page(1, {"http": "http://127.0.0.1:1"}), Page(2, {}, restarts=3)]))
    text = generate_latest(registry).decode()
    assert "pitstop_relay_workers 1.0" in text
    assert 'pitstop_relay_worker_restarts_total{worker="2"} 3.0' in text


def test_a_port_is_held_without_listening_and_another_programs_is_refused() -> None:
    with held("127.0.0.1", 0) as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"cannot listen .*:{port}.: Address already in use"),
            held("127.0.0.1", port),
        ):
            pass


@given(st.lists(st.sampled_from(["prove", "asks", "tells", "answer"]), max_size=60))
def test_a_proof_takes_the_place_of_its_own_answer(events: list[str]) -> None:
    def request(name: bytes, wants_reply: bool) -> bytes:
        return b"\x50" + len(name).to_bytes(4, "big") + name + bytes([wants_reply])

    proving, proved = Proving(lambda keys: b"proof"), False
    awaited: list[str] = []
    for event in events:
        if event == "answer" and awaited:
            wanted = awaited.pop(0)
            assert proving.answered(b"\x52") == (b"\x51proof" if wanted == "prove" else b"\x52")
        elif event != "answer":
            name = b"hostkeys-prove-00@openssh.com" if event == "prove" else b"tcpip-forward"
            proving.asked(request(name, event != "tells"))
            if event != "tells":
                awaited.append("prove" if event == "prove" and not proved else "asks")
                proved = proved or event == "prove"


def test_requests_that_nobody_answers_are_not_kept() -> None:
    proving = Proving(lambda keys: b"proof")
    for _ in range(3 * MAX_AWAITED):
        proving.asked(b"\x50\0\0\0\1x\1")
        assert len(proving._awaited) <= MAX_AWAITED + 1
    assert proving.answered(b"\x52") == b"\x52"


ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZMFOHiDapyhBXe1CsiIA68RV8VEaINI4sQW+vd2mAF"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIGnkXrJWq2XpycVdOaKogGCBET1FkdJgEO5nXHTjmKT"


def test_another_host_key_is_told_with_both_fingerprints() -> None:
    fault = pinned.another(f"# relay\n[r]:2222 {ONE}\n", f"[r]:2222 {OTHER}", "r:2222")
    assert fault is not None and fault.code == 255
    shown, wanted = pinned.fingerprint_of(f"r {ONE}"), pinned.fingerprint_of(f"r {OTHER}")
    assert fault.what == f"the relay at r:2222 shows the host key {shown}; pinned is {wanted}. Nothing was sent to it"
    assert pinned.another(f"r {ONE}", f"[r]:2222 {OTHER}\n[r]:2222 {ONE}", "r:2222") is None
    assert pinned.another("", f"[r]:2222 {OTHER}", "r:2222") is None, "nobody answers: that is another trouble"
    assert pinned.fingerprint_of(f"@cert-authority r {OTHER}\nr {ONE}") == shown
    assert pinned.fingerprint_of("") == pinned.fingerprint_of("r ssh-ed25519 nonsense") == ""
