"""Every query of the dashboard, on a real Prometheus that scrapes the real services after real runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.patience import PATIENCE
from tests.whole_system import (
    Prometheus,
    families,
    page,
    running_prometheus,
    running_system,
    series,
    ssh,
    wait_until,
)
from tools import dashboards

from pitstop_common.bus import Bus, connected

DASHBOARD: dict[str, Any] = json.loads((dashboards.FOLDER / "concurrency.json").read_text())
QUERIES = [
    (f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"])
    for panel in DASHBOARD["panels"] if panel["type"] != "row" for target in panel["targets"]
]  # fmt: skip

pytestmark = pytest.mark.xdist_group("dashboard")  # one system for all of them

NOTHING_HAPPENS = {
    "pitstop_sandbox_errors_total": "no sandbox fails here",
    "pitstop_relay_connections_refused_total": "nobody comes over a limit",
    "pitstop_sandbox_swept_total": "nothing is left over here",
    "pitstop_secrets_fetches_total": "no job here has secrets",
    'result="error"': "no run ends for a reason of ours",
}
"""What `or vector(0)` may really stand for in this test. For all else the event is made to happen."""

NOT_SHOWN = {
    "process_virtual_memory_bytes": "resident memory says more",
    "process_start_time_seconds": "ready and reconnects say when something restarted",
    "python_info": "in build_info's place for Python; of no use on a board",
    "python_gc_objects_collected_total": "for profiling",
    "python_gc_objects_uncollectable_total": "for profiling",
    "python_gc_collections_total": "for profiling",
}
LABELS = {
    "pool", "use", "result", "reason", "kind", "collector", "handler", "outcome", "le", "backend", "op", "error_type",
    "state", "method", "direction", "limit", "service", "version",
    "generation", "implementation", "major", "minor", "patchlevel",
}  # fmt: skip
"""Closed sets, all of them. A run, a user, an org or an address is never a label."""


class World(NamedTuple):
    facts: dict[str, Any]
    prometheus: Prometheus
    folder: Path

    def pages(self) -> dict[str, str]:
        return {name: page(url) for name, url in self.facts["metrics"].items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("ssh"):
        pytest.skip("ssh: the OpenSSH client is not installed")
    folder = tmp_path_factory.mktemp("board")
    with (
        running_system(folder / "up", "--slots", "2") as facts,
        running_prometheus(folder / "prometheus", facts["metrics"]) as prometheus,
    ):
        world = World(facts, prometheus, folder)
        wait_until(lambda: list(prometheus.up().values()) == [True] * 4, PATIENCE)
        for number in range(2):  # a rate needs the series before its second step
            asyncio.run(story(world, number))
            wait_until(lambda n=number: ended_by_idle(prometheus) > n, PATIENCE)
        yield world


def ended_by_idle(prometheus: Prometheus) -> float:
    found = prometheus.query('sum(pitstop_janitor_reclaimed_total{kind="session"})')
    return float(found[0]["value"][1]) if found else 0.0


async def story(world: World, number: int) -> None:
    """A run that succeeds, one that is refused, one that fails, waits, is entered, and is ended by the janitor."""
    key, stranger = make_key(world.folder / f"key{number}"), make_key(world.folder / f"stranger{number}")
    async with connected(world.facts["nats"], "test", attempts=2) as bus, listening(bus) as heard:
        await ask(bus, id=f"bad{number}", project=7)
        await ask(bus, id=f"good{number}", steps=[{"run": "echo hello"}])
        await ask(bus, id=f"good{number}", steps=[{"run": "echo hello"}])
        window = {"pause": "on_failure", "connect_window": 3, "idle_timeout": 3}
        keys = [key.with_suffix(".pub").read_text()]
        await ask(bus, id=f"fail{number}", steps=[{"run": "false"}], ssh=window | {"keys": keys})
        paused = await heard("job.paused", f"fail{number}")
        refused = await asyncio.to_thread(ssh, paused["ssh"], world.folder, stranger, "true")
        assert refused.returncode == 255
        entered = await asyncio.to_thread(ssh, paused["ssh"], world.folder, key, "echo", "inside")
        assert (entered.returncode, entered.stdout) == (0, "inside\n"), entered.stderr
        await heard("run.finished", f"good{number}")
        assert (await heard("session.expired", f"fail{number}"))["reason"] in {"connect_window", "idle"}
        await heard("run.finished", f"fail{number}")
        await heard("run.rejected", f"bad{number}")


async def ask(bus: Bus, **request: Any) -> None:
    body = {"org": "local", "project": "web", "actor": "ada"} | request
    await bus.store("run.requested", json.dumps(body).encode())


@contextlib.asynccontextmanager
async def listening(bus: Bus) -> Any:
    """Gives `heard(bare name, request id)`: waits for that message and returns its body."""
    messages: list[tuple[str, dict[str, Any]]] = []
    arrived = asyncio.Condition()

    async def note(msg: Any) -> None:
        async with arrived:
            messages.append((msg.subject, json.loads(msg.data)))
            arrived.notify_all()

    for subject in ("job.paused", "session.expired", "run.finished", "run.rejected"):
        await bus.subscribe(subject, note)
    await bus.nc.flush()

    async def heard(subject: str, request: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((body for name, body in messages if name == subject and body["request"] == request), None)

        async with arrived:
            try:
                await asyncio.wait_for(arrived.wait_for(lambda: found() is not None), 20)
            except TimeoutError:
                raise AssertionError(f"no {subject} of {request}; heard {messages}") from None
        body = found()
        assert body is not None
        return body

    yield heard


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def concrete(expr: str) -> str:
    return expr.replace("$__rate_interval", "2m").replace("$__range", "5m").replace("$pool", ".*")


def numbers(found: list[dict[str, Any]]) -> list[float]:
    return [value for one in found if not math.isnan(value := float(one["value"][1]))]


@pytest.mark.parametrize(("name", "expr", "legend"), QUERIES, ids=[name for name, *_ in QUERIES])
def test_a_query_gives_numbers(world: World, name: str, expr: str, legend: str) -> None:
    nothing_happens = any(cause in expr for cause in NOTHING_HAPPENS)
    real = expr if nothing_happens else expr.removesuffix(" or vector(0)")
    found = answered(world.prometheus, real)
    assert numbers(found), f"{real} gave {found}"
    if not nothing_happens:
        for label in re.findall(r"{{(\w+)}}", legend):
            assert any(one["metric"].get(label) for one in found), f"no series of {expr} has {label}"


def answered(prometheus: Prometheus, expr: str) -> list[dict[str, Any]]:
    """The answer, once the newest numbers are scraped."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: numbers(prometheus.query(concrete(expr))), 3)
    return prometheus.query(concrete(expr))


def metrics_in(expr: str) -> set[str]:
    return set(re.findall(r"\b((?:pitstop|process)_[a-z_]+)\b(?=[{)\s]|$)", expr))


def family(name: str, declared: set[str]) -> str:
    for suffix in ("_bucket", "_count", "_sum"):
        if name.removesuffix(suffix) in declared:
            return name.removesuffix(suffix)
    return name


def test_the_board_shows_what_is_exported_and_nothing_else(world: World) -> None:
    exported = set().union(*(families(text) for text in world.pages().values()))
    shown = {family(name, exported) for _, expr, _ in QUERIES for name in metrics_in(expr)}
    assert shown - exported == set(), "asked for, but no service exports it"
    assert exported - shown == set(NOT_SHOWN), "exported, but no panel shows it: add one, or say why not"


def test_labels_are_closed_sets_and_more_runs_make_no_more_series(world: World) -> None:
    before = {name: series(text) for name, text in world.pages().items()}
    for one in set().union(*before.values()):
        assert set(re.findall(r'[{,](\w+)="', one)) <= LABELS, one
    asyncio.run(many_runs(world, 12))
    after = {name: series(text) for name, text in world.pages().items()}
    assert {name: after[name] - before[name] for name in before} == {name: set() for name in before}


async def many_runs(world: World, count: int) -> None:
    async with connected(world.facts["nats"], "test", attempts=2) as bus, listening(bus) as heard:
        for number in range(count):
            await ask(bus, id=f"more{number}", project=f"p{number}", actor=f"a{number}", steps=[{"run": "true"}])
        for number in range(count):
            await heard("run.finished", f"more{number}")


def test_the_slots_add_up(world: World) -> None:
    def value(expr: str) -> float:
        return sum(numbers(world.prometheus.query(expr)))

    assert value("max by (pool) (pitstop_slots)") == 2
    wait_until(lambda: value("sum(max by (pool, use) (pitstop_slots_in_use))") == 0, PATIENCE)
    assert value("sum(pitstop_scheduler_owner)") == 1
    assert value('sum(pitstop_runs_completed_total{result="failure"})') == 2
