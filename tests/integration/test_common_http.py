"""/livez, /readyz and /metrics say what is, also while the event loop does not run."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.patience import PATIENCE

from pitstop_common import lifecycle
from pitstop_common.config import ServiceConfig
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.http import HttpServer
from pitstop_common.lifecycle import Runtime
from pitstop_common.telemetry import ServiceMetrics


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def becomes(url: str, status: int, seconds: float = PATIENCE) -> str:
    deadline = time.monotonic() + seconds
    while True:
        found, page = get(url)
        if found == status:
            return page
        assert time.monotonic() < deadline, f"{url} stays {found}"
        time.sleep(0.01)


@pytest.fixture
def wrong() -> dict[str, str]:
    return {"alive": "", "ready": ""}


@pytest.fixture
def server(wrong: dict[str, str]) -> Iterator[HttpServer]:
    made = HttpServer(
        "127.0.0.1", 0, ServiceMetrics("x").registry, alive=lambda: wrong["alive"], ready=lambda: wrong["ready"]
    )
    yield made
    made.close()


def test_the_checks_say_what_is_wrong(server: HttpServer, wrong: dict[str, str]) -> None:
    assert get(server.url + "/livez") == (200, "ok\n")
    wrong["ready"] = "draining"
    assert get(server.url + "/readyz") == (503, "draining\n")
    assert get(server.url + "/livez") == (200, "ok\n")
    wrong["alive"] = "stuck"
    assert get(server.url + "/livez") == (503, "stuck\n")


def test_other_paths_are_told_where_to_look(server: HttpServer) -> None:
    for path in ("/", "/metrics/", "/livezz", "/../etc/passwd"):
        status, page = get(server.url + path)
        assert status == 404 and "/readyz" in page


def test_metrics_are_prometheus_text(server: HttpServer) -> None:
    with urllib.request.urlopen(server.url + "/metrics", timeout=5) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=")
        assert b"pitstop_ready 0.0" in reply.read()


def test_a_client_that_says_nothing_holds_up_nobody(server: HttpServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        assert get(server.url + "/livez") == (200, "ok\n")


def test_a_closed_server_leaves_no_thread_and_frees_its_port() -> None:
    before = threading.active_count()
    made = HttpServer("127.0.0.1", 0, ServiceMetrics("x").registry, alive=str, ready=str)
    port = int(made.url.rsplit(":", 1)[1])
    made.close()
    assert threading.active_count() == before
    again = HttpServer("127.0.0.1", port, ServiceMetrics("x").registry, alive=str, ready=str)
    again.close()


async def test_a_blocked_loop_is_seen_and_one_that_runs_again_too(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_BLOCKED_AFTER", 0.6)
    runtime = Runtime("test", ServiceConfig(nats_url=nats_server.url()))
    seen: list[str] = []
    async with runtime.started():
        runtime.ready()
        livez = runtime._http.url + "/livez"
        assert await asyncio.to_thread(get, livez) == (200, "ok\n")
        outside = threading.Thread(target=lambda: seen.append(becomes(livez, 503)))
        outside.start()
        outside.join()  # this blocks the loop
        assert seen and "blocked" in seen[0]
        assert await asyncio.to_thread(becomes, livez, 200) == "ok\n"
        lag = "pitstop_event_loop_lag_seconds_sum"
        deadline = time.monotonic() + PATIENCE
        while (runtime.metrics.registry.get_sample_value(lag) or 0) < 0.3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_a_service_is_ready_from_its_word_until_it_is_told_to_stop(nats_server: EmbeddedServer) -> None:
    runtime = Runtime("test", ServiceConfig(nats_url=nats_server.url()))
    async with runtime.started():
        readyz = runtime._http.url + "/readyz"
        assert await asyncio.to_thread(get, readyz) == (503, "starting\n")
        runtime.ready()
        assert await asyncio.to_thread(get, readyz) == (200, "ok\n")
        runtime.stop()
        assert await asyncio.to_thread(get, readyz) == (503, "draining\n")
        assert runtime.metrics.registry.get_sample_value("pitstop_draining") == 1
