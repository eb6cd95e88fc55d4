"""`python -m tests.bench` measures what it says, in a form that programs can read. Few of each: no figure is judged."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from tests.bench import docker
from tests.bench.__main__ import PARTS, collect
from tests.bench.amounts import QUICK
from tests.bench.report import percentile, row, table, write

NAMES = [
    "request to first line, median", "request to first line, p95",
    "a line printed to `logs -f`, median", "a line printed to `logs -f`, p95", "lines through the log path",
    "ssh connect to output, median", "ssh connect to output, p95",
    "ssh connect to prompt, median", "ssh connect to prompt, p95",
    "echo of a key, median", "echo of a key, p99", "echo back to back, median",
    "download", "upload", "echo beside a download, p99", "echo beside a download, median",
    "server CPU per connect, many at once", "memory per idle session", "memory of a job's holder",
    "whole runs", "whole runs, played hosts", "CPU per run, 3 schedulers to 1", "facts decided on and committed",
    "time per grant, long queue to empty", "bytes per waiting job, snapshot",
    "janitor's pass, live sessions", "deadline to the next run's start",
]  # fmt: skip
TARGETS = [
    "ours <= 150 ms", "ours <= 150 ms", "ratio >= 0.25", "ratio <= 0.8", "ratio <= 0.6", "ratio <= 2", "ratio <= 2.5",
    "ratio >= 0.6", "ratio >= 0.6", "ours <= 15 ms", "ratio <= 0.4", "ours <= 100 KiB", "ours <= 12288 KiB",
    "ratio >= 0.4", "ratio >= 0.6", "ratio <= 1.2", "ours >= 30000 /s", "ratio <= 1.5", "ours <= 128 B",
    "ours <= 100 ms", "ours <= 1000 ms",
]  # fmt: skip


@pytest.mark.skipif(
    not shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin"), reason="sshd: apt-get install openssh-server"
)
async def test_all_rows_in_one_run(tmp_path: Path) -> None:
    rows = await collect(tmp_path, QUICK, [part for part in PARTS if part != "docker"])
    assert [one.name for one in rows] == NAMES
    assert [one.target for one in rows if one.target] == TARGETS
    for one in rows:
        assert math.isfinite(one.ratio) and min(one.ours, one.other, one.ratio) > 0, one
        assert (one.passed is None) == (one.target == "")
        assert one.note
    path = tmp_path / "bench.json"
    write(path, rows)
    found = json.loads(path.read_text())
    assert [sorted(one) for one in found] == [
        ["name", "note", "other", "ours", "pass", "ratio", "target", "unit"]
    ] * len(NAMES)
    lines = table(rows).splitlines()
    assert len(lines) == 1 + len(NAMES)
    assert all(line.startswith(name) for line, name in zip(lines[1:], NAMES, strict=True))


async def test_the_rows_of_containers(tmp_path: Path) -> None:
    rows = await docker.measure(tmp_path / "docker", QUICK)
    assert [one.target for one in rows] == [
        "ours <= 120 ms", "ratio <= 1.5", "ratio <= 3", "ratio <= 1", "ratio <= 3", "ratio >= 0.35"
    ]  # fmt: skip
    assert all(math.isfinite(one.ratio) and min(one.ours, one.other) > 0 and "load" in one.note for one in rows)


def test_a_row_passes_or_not_by_what_its_target_is_of() -> None:
    assert row("a", 85, 100, most=0.85).passed and not row("a", 86, 100, most=0.85).passed
    assert row("a", 40, 100, least=0.4).passed and not row("a", 39, 100, least=0.4).passed
    latency = row("a", 149, 10, most=150, of="ours")
    assert (latency.passed, latency.target, latency.ratio) == (True, "ours <= 150 ms", 14.9)
    assert row("a", 1, 2).passed is None


def test_the_p95_of_twenty_is_the_nineteenth() -> None:
    assert percentile(range(1, 21), 95) == 19
    assert percentile([3], 99) == 3
