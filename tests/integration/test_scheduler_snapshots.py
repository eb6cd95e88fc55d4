"""Snapshots of the decision log on a real server: a start reads one instead of the history, the log is trimmed behind
them, and neither a kill in the middle of one nor a reader that slept through a trim does harm."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pitstop_common import ids, subjects
from pitstop_common import messages as m
from pitstop_common.bus import Bus
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.errors import Unavailable
from pitstop_common.limits import OWNER_TTL
from pitstop_common.streams import DEC, SNAP
from pitstop_common.telemetry import headers
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import fold
from pitstop_scheduler.log import Log
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot import Manifest
from pitstop_scheduler.snapshot_store import Snapshots
from pitstop_scheduler.verify import check
from pitstop_scheduler.views import job_view, run_view

TAKE_OVER = 2.0
"""From nothing to the fold of 100,000 ended runs, in seconds."""
RECORD = 250
"""Runs in one record of a made-up history."""


class Process:
    """A scheduler, and what it says."""

    def __init__(self, url: str, folder: Path, name: str, every: int) -> None:
        self.ready, self.log = folder / f"{name}.ready", folder / f"{name}.log"
        self.env = {**os.environ, "PITSTOP_NATS_URL": url, "PITSTOP_READY_FILE": str(self.ready),
                    "PITSTOP_SNAPSHOT_EVERY": str(every)}  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.ready.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "pitstop_scheduler"], env=self.env, stderr=log)
        await until(self.is_ready)

    async def is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log.read_text()
        return self.ready.exists()

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self.send(number)
        status = self._process.wait(20)
        self._process = None
        return status

    @property
    def runs(self) -> bool:
        return self._process is not None


@pytest.fixture
async def made(nats_server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Callable[[str, int], Process]]:
    """Makes schedulers that are gone at the end."""
    processes: list[Process] = []

    def make(name: str, every: int) -> Process:
        processes.append(Process(nats_server.url(), tmp_path, name, every))
        return processes[-1]

    yield make
    for one in processes:
        if one.runs:
            one.end(signal.SIGKILL)


async def until(condition: Callable[[], Awaitable[Any]], timeout: float = 30.0) -> Any:
    """Wait for a state."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < deadline, "the state did not come"
        await asyncio.sleep(0.02)
    return found


async def ask(bus: Bus, verb: str, **body: Any) -> Any:
    reply = await bus.request(subjects.api("acme", "ada", verb), json.dumps(body).encode(), timeout=6)
    assert "Nats-Service-Error-Code" not in (reply.headers or {}), reply.data
    return json.loads(reply.data)


async def request(bus: Bus, id: str) -> Any:
    """A run that nobody will take, however long the answer takes."""
    while True:
        try:
            return await ask(bus, "run", id=id, org="acme", project="web", steps=[{"run": "true"}])
        except Unavailable:
            await asyncio.sleep(0.1)


async def accept(bus: Bus, id: str) -> str:
    """The fact that intake says of a request (a sleeping scheduler keeps its share of the requests to itself)."""
    run = ids.run_id("acme", id)
    fact = m.RunAccepted(id=f"accepted.{run}", time="", org="acme", run=run, project="web", request=id, source="test",
                         jobs=(m.AcceptedJob(job=f"{run}-1", key="job", pool="default"),))  # fmt: skip
    await bus.store_surely(subjects.about("run.accepted", "acme", run), m.encode(fact), headers(fact.id))
    return run


async def history(bus: Bus, runs: int, *, ended: bool) -> None:
    """The log as it is after that many runs: `ended`, or all waiting. Its records say that their effects are out (but
    for the newest one's), so the read models of those that wait are there, too."""
    sequence, state = 0, State()
    for first in range(0, runs, RECORD):
        some = [f"{number:012}" for number in range(first, first + RECORD)]
        futures = []
        for changes in life(some, ended=ended):
            record = c.Record(1, sequence, "past", 0, 1000.0 + first, max(0, sequence - 1), changes, sequence)
            futures.append(await bus.send(subjects.decisions(0), c.encode_record(record)))
            sequence += 1
            if not ended:
                fold(state, record, sequence)
        assert [ack.seq for ack in await asyncio.gather(*futures)][-1] == sequence
        if not ended:
            await asyncio.gather(*[await bus.send(key, view) for key, view in read_models(state, some, sequence)])


def read_models(state: State, runs: list[str], sequence: int) -> Iterator[tuple[str, bytes]]:
    """Subjects and contents."""
    root = "$KV.runs."
    for run in map(state.runs.__getitem__, runs):
        yield f"{root}{run.org}.{run.id}", m.encode(run_view(run, sequence))
        for job in run.jobs:
            yield f"{root}{run.org}.{run.id}.{job}", m.encode(job_view(state.jobs[job], run, sequence))


def life(runs: list[str], *, ended: bool) -> list[tuple[c.AnyChange, ...]]:
    """The records of runs from the queue to their end."""
    queued = tuple(
        c.Queued(run, f"o{int(run) % 50}", "web", chance(run), "ada", 0, f"REQ:{run}", chance(f"trace {run}"),
                 ((f"{run}-1", "job", "default", False),), 600, 900, 3600, "cancel", 1, f"accepted.{run}")
        for run in runs
    )  # fmt: skip
    if not ended:
        return [queued]
    ends: list[c.AnyChange] = []
    for run in runs:
        ends += [c.Ended(f"{run}-1", 1, "success", "", "x"), c.RunEnded(run, "success", "", "x")]
    return [queued, tuple(c.Granted(f"{run}-1", 1, True, 0.1) for run in runs), tuple(ends)]


def chance(of: str) -> str:
    """Ids that cannot be made shorter, as real ones."""
    return hashlib.sha256(of.encode()).hexdigest()


async def manifests(bus: Bus, count: int = 1, above: int = 0) -> list[Manifest]:
    found = [one for one in await Snapshots(bus, 0).manifests() if one.head > above]
    return found if len(found) >= count else []


async def heads(bus: Bus) -> set[int]:
    """Of all snapshots that anything is left of, torn ones too."""
    return await Snapshots(bus, 0)._heads()


async def stored(bus: Bus, stream: str) -> Any:
    return (await bus.js.stream_info(stream)).state


async def newest(bus: Bus) -> c.Record:
    return c.decode_record((await bus.js.get_last_msg(DEC, subjects.decisions(0))).data or b"")


async def owned_since(bus: Bus, epoch: int) -> bool:
    return (await newest(bus)).epoch > epoch


async def trimmed(bus: Bus, above: int) -> bool:
    return bool((await stored(bus, DEC)).first_seq > above)


async def test_a_long_history_is_taken_over_at_once_and_its_log_is_bounded(
    bus: Bus, made: Callable[[str, int], Process]
) -> None:
    await history(bus, 100_000, ended=True)
    before = await stored(bus, DEC)
    one = made("one", 1000)
    await one.start()
    await until(lambda: manifests(bus))
    assert one.end() == 0
    whole = await manifests(bus, 2)
    assert len(whole) == 2, "one because it was time, one at the stop"
    after = await stored(bus, DEC)
    assert (after.first_seq, after.bytes < before.bytes / 50) == (whole[1].published_to + 1, True)

    log = Log(bus, 0)
    began = time.perf_counter()
    await log.load()
    head = await log.head()
    while log.reached < head:
        await log.follow()
    took = time.perf_counter() - began
    await log.close()
    assert (log.state.head, len(log.state.known)) == (head, 100_000)
    assert took < TAKE_OVER

    two = made("two", 1000)
    await two.start()
    again = await request(bus, "new")
    assert not again["duplicate"]
    three = made("three", 1000)  # knows nothing but what is stored, and has the owner killed under it at once
    await three.start()
    epoch = (await newest(bus)).epoch
    killed = time.monotonic()
    two.end(signal.SIGKILL)
    await until(lambda: owned_since(bus, epoch))
    print(f"taken over {time.monotonic() - killed:.2f} s after the kill")
    assert time.monotonic() - killed < OWNER_TTL + TAKE_OVER
    assert (await request(bus, "new"))["duplicate"]
    assert three.end() == 0
    checker = await check(bus)
    assert (checker.wrong, checker.start > 0, len(checker.ended)) == ([], True, 100_000)


async def test_a_kill_in_the_middle_of_a_snapshot_leaves_one_that_is_never_used(
    bus: Bus, made: Callable[[str, int], Process]
) -> None:
    await history(bus, 30_000, ended=False)
    one = made("one", 100)
    torn: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def kill(message: Any) -> None:
        if not torn.done():
            one.send(signal.SIGKILL)
            torn.set_result(int(message.subject.split(".")[2]))

    await bus.subscribe(subjects.snapshot(0, "*", 1), kill)
    await one.start()
    await asyncio.wait_for(torn, 20)
    one.end(signal.SIGKILL)
    assert (await heads(bus), await manifests(bus)) == ({torn.result()}, [])
    two = made("two", 100)
    await two.start()
    (whole,) = await until(lambda: manifests(bus))
    assert whole.head > torn.result()
    await until(lambda: swept(bus, {whole.head}))
    assert (await request(bus, "new"))["queue_position"] == 1
    assert two.end() == 0
    checker = await check(bus)
    assert (checker.wrong, len(checker.queued)) == ([], 30_001)
    found = await Snapshots(bus, 0).newest(checker.state.head)
    assert found is not None and len(found.queues["o1"][0]) == 30_000 / 50


async def swept(bus: Bus, kept: set[int]) -> bool:
    return await heads(bus) == kept


async def nobody_waits(bus: Bus) -> bool:
    return not any(one.num_waiting for one in await bus.js.consumers_info(DEC))


async def test_a_standby_that_slept_through_a_trim_reads_a_snapshot_and_takes_over(
    bus: Bus, made: Callable[[str, int], Process]
) -> None:
    owner, standby = made("owner", 10), made("standby", 10)
    for one in (owner, standby):
        await one.start()
    await request(bus, "seen-by-both")
    standby.send(signal.SIGSTOP)
    await until(lambda: nobody_waits(bus))  # what it had asked for would be in its socket
    slept_at = (await stored(bus, DEC)).last_seq
    accepted: list[str] = []
    while not await trimmed(bus, slept_at + 5):
        accepted.append(await accept(bus, f"r{len(accepted)}"))
    standby.send(signal.SIGCONT)
    owner.end(signal.SIGKILL)
    again = await request(bus, "r0")
    assert again["duplicate"], "it does not know what was decided while it slept"
    assert "have been trimmed" in standby.log.read_text()
    listed = {run["run"] for run in (await ask(bus, "ls"))["runs"]}
    assert set(accepted) < listed
    assert standby.end() == 0
    checker = await check(bus)
    assert (checker.wrong, checker.start > 0) == ([], True)
    assert checker.queued == listed


async def test_an_unreadable_snapshot_is_passed_over_for_the_one_before(
    bus: Bus, made: Callable[[str, int], Process]
) -> None:
    one = made("one", 10)
    await one.start()
    count = 0
    while len(await manifests(bus, 2)) < 2:
        await request(bus, f"r{count}")
        count += 1
    assert one.end() == 0
    newest, older = await manifests(bus, 2)
    chunk = subjects.snapshot(0, newest.head, 0)
    found = (await bus.js.get_last_msg(SNAP, chunk)).data
    assert found
    await bus.store(chunk, found[:-1] + bytes([found[-1] ^ 1]))
    assert await Snapshots(bus, 0).read(newest) is None
    log = Log(bus, 0)
    await log.load()
    assert log.state.head == older.head
    while log.reached < newest.head:
        await log.follow()
    await log.close()
    assert len(log.state.runs) == count
    assert (await stored(bus, SNAP)).messages == 2 * (1 + newest.chunks)
    checker = await check(bus)
    assert checker.wrong == []
