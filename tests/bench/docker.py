"""Containers: from `run.requested` to the first line, beside a bare `docker run`; and a session, beside an sshd that
runs in a container of the same image. With an engine of its own. Needs root."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import ssh_bulk, ssh_echo, ssh_prompt
from tests.bench.amounts import Amounts
from tests.bench.first_line import first_line
from tests.bench.report import Row, median, row
from tests.bench.ssh_ends import openssh, paused_job
from tests.bench.whole import ORG, Requests
from tests.docker_engine import BARE, FULL, DockerEngine, load_images, running_engine
from tests.patience import PATIENCE
from tests.whole_system import running_system

from pitstop_common import subjects
from pitstop_common.bus import Bus, connected
from pitstop_common.ids import run_id
from pitstop_common.messages import JobFinished, decode_chunk
from pitstop_common.pull import Pull, reader
from pitstop_common.streams import LOGS

WARM_MS: Final = 120
COLD: Final = 1.5
SLOWEST: Final = 3.0
PROMPT: Final = 1.0
ECHO: Final = 3.0
DOWNLOAD: Final = 0.35
_STEADY: Final = 0.3


async def measure(folder: Path, amounts: Amounts) -> list[Row]:
    """On a system with one container ready of the one image, and none of the other."""
    folder.mkdir()
    with running_engine() as engine:
        load_images(engine)
        env = {"PITSTOP_DOCKER_HOST": engine.host, "PITSTOP_DOCKER_IMAGE": FULL, "PITSTOP_DOCKER_WARM_RATE": "6000"}
        options = ("--sandbox", "docker", "--slots", str(max(4, amounts.containers)))
        with running_system(folder / "up", *options, env=env) as system:
            async with connected(system["nats"], "bench") as bus:
                rows = [*await _starts(bus, engine, amounts), *await _at_once(bus, amounts)]
            return [*rows, *await _session(system, folder, engine, amounts)]


async def _starts(bus: Bus, engine: DockerEngine, amounts: Amounts) -> list[Row]:
    """By turns: a job that finds a container ready, one that does not, and `docker run` of each image."""
    requests, logs = Requests(bus), Pull(bus, LOGS, reader(subjects.logs(ORG, "*", "*")))
    found: dict[str, list[float]] = {"warm": [], "cold": [], FULL: [], BARE: []}
    try:
        await logs.next(timeout=0.2)
        for _ in range(amounts.container_starts + 1):
            await _one_ready(engine)
            found["warm"].append(await first_line(requests, logs))
            await _one_ready(engine)
            found["cold"].append(await first_line(requests, logs, image=BARE))
            for image in (FULL, BARE):
                await _one_ready(engine)
                found[image].append(await asyncio.to_thread(_bare, engine, image))
    finally:
        await logs.close()
        await requests.close()
    warm, cold, full, bare = (median(each[1:]) for each in found.values())
    note = f"n={amounts.container_starts}; other: docker run … echo, of the same image; {_load()}"
    return [
        row("container ready: request to first line", warm, full, most=WARM_MS, of="ours", note=note),
        row("container not ready: request to first line", cold, bare, most=COLD, note=note),
    ]


async def _at_once(bus: Bus, amounts: Amounts) -> list[Row]:
    """All published together: the slowest start beside the middle one."""
    requests, logs = Requests(bus), Pull(bus, LOGS, reader(subjects.logs(ORG, "*", "*")))
    taken: dict[str, float] = {}
    try:
        await logs.next(timeout=0.2)
        begun = time.perf_counter()
        asked = [await requests.publish("echo hi") for _ in range(amounts.containers)]
        runs = {run_id(ORG, request) for request in asked}
        while len(taken) < len(runs):
            for item in await logs.next(timeout=10):
                chunk = decode_chunk(item.data)
                run = chunk.job.rpartition("-")[0]
                if chunk.kind == "output" and run in runs:
                    taken.setdefault(run, (time.perf_counter() - begun) * 1000)
        left = set(asked)
        while left:
            fact = await requests.any_of(left, lambda fact: isinstance(fact, JobFinished))
            left.discard(fact.request)
    finally:
        await logs.close()
        await requests.close()
    name = f"{len(taken)} containers at once: slowest first line, beside the middle one"
    return [row(name, max(taken.values()), median(list(taken.values())), most=SLOWEST, note=_load())]


async def _session(system: dict[str, Any], folder: Path, engine: DockerEngine, amounts: Amounts) -> list[Row]:
    shown = [option for each in ("/usr", "/etc", str(folder)) for option in ("--volume", f"{each}:{each}:ro")]
    inside = ["docker", "--host", engine.host, "run", "--rm", "--network", "host", "--tmpfs", "/run/sshd:mode=0755",
              "--workdir", "/", *shown, FULL]  # fmt: skip
    with openssh(folder / "openssh", inside) as sshd:
        async with paused_job(system, folder) as job:
            prompt, _ = ssh_prompt.measure(job, sshd, amounts)
            echo, *_ = ssh_echo.measure(job, sshd, amounts)
            download, _ = ssh_bulk.rates(job, sshd, amounts)
    note = f"other: OpenSSH's sshd in a container of the same image, on the network of the host; {_load()}"
    return [
        row("container: ssh connect to prompt", prompt.ours, prompt.other, most=PROMPT, note=note),
        row("container: echo of a key", echo.ours, echo.other, most=ECHO, note=note),
        row("container: download", download.ours, download.other, least=DOWNLOAD, unit="MB/s", note=note),
    ]


async def _one_ready(engine: DockerEngine) -> None:
    """The last job's container is gone, and one waits for the next: one there is, the same for a while."""
    same, since, deadline = "", 0.0, time.monotonic() + PATIENCE
    while not same or time.monotonic() - since < _STEADY:
        assert time.monotonic() < deadline, "no container is made ready"
        await asyncio.sleep(0.02)
        listed = json.loads((await asyncio.to_thread(engine.get, "/containers/json?all=1"))[1])
        now = listed[0]["Id"] if len(listed) == 1 and listed[0]["State"] == "running" else ""
        if now != same:
            same, since = now, time.monotonic()


def _bare(engine: DockerEngine, image: str) -> float:
    command = ["docker", "--host", engine.host, "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image,
               "-c", "echo hi"]  # fmt: skip
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = (time.perf_counter() - begun) * 1000
    assert line == b"hi\n" and process.returncode == 0
    return taken


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
