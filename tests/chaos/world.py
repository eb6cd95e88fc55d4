"""One run of chaos from its seed to its figures."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from nats.errors import Error as NatsError
from tests.chaos import evidence
from tests.chaos.aftermath import After, aftermath
from tests.chaos.checker import Checker, Copy, Figures
from tests.chaos.cluster import NODES
from tests.chaos.havoc import CLUSTER, EVERYTHING, Havoc
from tests.chaos.load import Letter, Loader, letters
from tests.chaos.processes import Kill, Service, System

from pitstop_common import streams
from pitstop_common.bus import Bus, connected
from pitstop_common.errors import PitstopError
from pitstop_common.provision import provision

_STANDSTILL: Final = 60.0
"""Without one more run at its end for so long, the system will not settle."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything. Seconds."""

    runs: int
    seed: int
    kills: int
    """At least so many."""
    gap: float
    """Between two acts of havoc, on average."""
    seconds: float
    """Over which the requests are spread."""
    slots: int = 5
    """At most, of an org; each host has room for twice as many."""
    partitions: int = 1
    clustered: bool = False
    """On three servers, each stream on all of them."""

    def settings(self) -> dict[str, str]:
        """Of every service."""
        return {"partitions": str(self.partitions), "replicas": str(self.replicas)}

    @property
    def replicas(self) -> int:
        """Copies of each stream."""
        return NODES if self.clustered else 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `wrong` is empty when all is well."""

    figures: Figures
    kills: int
    wrong: list[str]
    acts: list[str]
    settled: float
    """Seconds from the last act and the last request until nothing was left to do."""
    deeds: dict[str, int]
    """What was done to the system, and how often."""
    slow_consumers: int
    """Clients that the server cut off because they did not read."""
    old_starts: int
    """Delivered again long after their jobs had ended, to hosts that remember nothing."""
    lost_hosts: int
    """Stopped for longer than any liveness time, and called lost."""

    def line(self) -> str:
        """The line that is promised."""
        figures = self.figures
        return (f"requested = {figures.requested}, ended = {figures.ended}, lost = {figures.lost}, "
                f"twice = {figures.twice}, leaked = {figures.leaked}, kills = {self.kills}")  # fmt: skip

    def details(self) -> str:
        """For people."""
        found = sorted(self.figures.latencies) or [0.0]
        takeovers = " ".join(f"{one:.1f}" for one in self.figures.takeovers)
        return (f"{self.figures.epochs} epochs, takeovers of {takeovers} s; "
                f"{self.figures.errors} jobs ended with their host, {self.figures.retried} were tried again; "
                f"{self.figures.duplicates} duplicates, {self.figures.rejected} rejected; request to end: "
                f"p50 {found[len(found) // 2]:.1f} s, p99 {found[int(len(found) * 0.99)]:.1f} s, "
                f"max {found[-1]:.1f} s; "
                f"settled after {self.settled:.1f} s; {len(self.acts)} acts: "
                f"{', '.join(f'{deed} {count}' for deed, count in sorted(self.deeds.items()))}; "
                f"{self.slow_consumers} slow consumers cut off; {self.lost_hosts} hosts called lost; "
                f"{self.old_starts} starts of long ago delivered again")  # fmt: skip


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Who takes part, what is asked, and what is done to them."""

    services: Callable[[Path, Plan], list[Service]]
    letters: Callable[[random.Random, Plan], list[Letter]]
    deeds: dict[str, int]
    judge: Callable[[Bus, Path, Plan, Checker, list[Kill]], Awaitable[tuple[list[str], int]]]
    """What is wrong with the steps themselves, and how many ran more than once."""
    long_after: bool = False
    """Goes it on after the havoc with what takes long: old starts, a host stopped for good."""


def played_services(folder: Path, plan: Plan) -> list[Service]:
    """3 schedulers, 2 janitors, 2 hosts."""
    everyone = [Service(folder, f"scheduler-{n}", "pitstop_scheduler", **plan.settings()) for n in (1, 2, 3)]
    everyone += [Service(folder, f"janitor-{n}", "pitstop_janitor", **plan.settings()) for n in (1, 2)]
    for n in (1, 2):
        everyone.append(Service(
            folder, f"sandbox-{n}", "tests.chaos.played_host", sandbox="fake", capacity=str(2 * plan.slots),
            host_id=f"host-{n}", CHAOS_EVIDENCE=str(folder / "evidence"), **plan.settings(),
        ))  # fmt: skip
    return everyone


async def played_steps(_: Bus, folder: Path, plan: Plan, checker: Checker, kills: list[Kill]) -> tuple[list[str], int]:
    """By the evidence that they left."""
    return evidence.judge(evidence.read(folder / "evidence"), checker.books, checker.asked, kills, plan.slots)


PLAYED: Final = Scene(
    services=played_services, letters=lambda chance, plan: letters(chance, plan.runs, plan.seconds), deeds=EVERYTHING,
    judge=played_steps, long_after=True,
)  # fmt: skip

CLUSTERED: Final = msgspec.structs.replace(PLAYED, deeds=CLUSTER, long_after=False)


async def play(folder: Path, plan: Plan, scene: Scene = PLAYED) -> Outcome:
    """All of it. Leaves no process, whatever happens. Raises AssertionError when a service ends by itself."""
    chance = random.Random(plan.seed)
    (folder / "evidence").touch()
    system = System(folder, scene.services(folder, plan), clustered=plan.clustered)
    try:
        await system.start()
        async with connected(system.url(), "chaos") as bus:
            await provision(bus, partitions=plan.partitions, replicas=plan.replicas)
            copy = Copy(bus)
            await copy.begin()
            loader = Loader(bus, random.Random(chance.random()), plan.slots)
            havoc = Havoc(system, loader, random.Random(chance.random()), plan.gap, scene.deeds)
            await loader.limits()
            loading = asyncio.ensure_future(loader.publish(scene.letters(chance, plan)))
            await havoc.reign(plan.kills, lambda: loader.published.is_set() or loading.done())
            await loading
            settled, late = await settle(bus)
            after = await aftermath(system, loader, settle) if scene.long_after and not late else After()
            checker = Checker(system, bus, loader.asked, copy, havoc.dethroned, after.lost)
            await checker.check()
            kills = [kill for service in system.services for kill in service.killed]
            wrong, twice = await scene.judge(bus, folder, plan, checker, kills)
            checker.figures.twice += twice
            wrong += late + after.wrong + checker.wrong + await asyncio.to_thread(verify, system)
        wrong += await _ending(system)
        return Outcome(figures=checker.figures, kills=system.kills, wrong=wrong, acts=havoc.acts, settled=settled,
                       deeds=dict(havoc.counts), slow_consumers=system.slow_consumers(),
                       old_starts=after.old_starts, lost_hosts=len(after.lost))  # fmt: skip
    finally:
        await system.close()


async def settle(bus: Bus) -> tuple[float, list[str]]:
    """Until nothing is left to do: seconds that it took, and what is left when nothing goes on any more."""
    begun = moved = time.monotonic()
    before, quiet = "", 0
    while quiet < 3:
        try:
            left = await _left(bus)
        except (PitstopError, NatsError, TimeoutError) as error:  # a server is away, or an election is under way
            left = str(error)
        if left != before:
            before, moved = left, time.monotonic()
        quiet = 0 if left else quiet + 1
        if left and time.monotonic() - moved > _STANDSTILL:
            return time.monotonic() - begun, [f"not settled: {left}"]
        await asyncio.sleep(0.3)
    return time.monotonic() - begun, []


async def _left(bus: Bus) -> str:
    for stream, consumer in ((streams.REQ, streams.INTAKE), (streams.REQ_ORG, streams.INTAKE)):
        info = await bus.js.consumer_info(stream, consumer)
        if info.num_pending or info.num_ack_pending:
            return f"{stream} has {info.num_pending} + {info.num_ack_pending} requests"
    work = (await bus.js.stream_info(streams.WORK)).state.messages
    if work:
        return f"WORK has {work} messages"
    unfinished = await _unfinished(bus)
    return f"{len(unfinished)} runs have not ended: {', '.join(unfinished[:5])}" if unfinished else ""


async def _unfinished(bus: Bus) -> list[str]:
    """Runs that were accepted, and of which `run.finished` was not told."""
    accepted = await _subjects(bus, streams.IN, "in.*.run.accepted.>")
    finished = await _subjects(bus, streams.EVENTS, "run.finished.>")
    return sorted(accepted - finished)


async def _subjects(bus: Bus, stream: str, pattern: str) -> set[str]:
    """The last tokens of all subjects of a stream that match: runs."""
    found: set[str] = set()
    while True:
        reply = await bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": pattern, "offset": len(found)}, 5.0)
        page = reply["state"].get("subjects") or {}
        found |= {subject.rpartition(".")[2] for subject in page}
        if not page or len(found) >= reply.get("total", 0):
            return found


def verify(system: System) -> list[str]:
    """`pitstop verify`, as an operator runs it."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path[1:]),
           "PITSTOP_NATS_URL": system.url()}  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-m", "pitstop_scheduler", "verify"], env=env, capture_output=True, text=True, timeout=120
    )
    return [] if said.returncode == 0 else [f"verify: {said.stdout}{said.stderr}"]


async def _ending(system: System) -> list[str]:
    """Stop everything; nothing may be left."""
    wrong = [f"{name} ended with {status} at SIGTERM" for name, status in (await system.end()).items() if status]
    await eventually_none(system.left)
    wrong += [f"a process is left: {one}" for one in system.left()]
    for host in system.of("sandbox"):
        left = [*(host.folder / "jobs").iterdir(), *(host.folder / "gone").iterdir()]
        wrong += [f"a folder is left: {one}" for one in left]
    return wrong


async def eventually_none(look: Callable[[], list[str]], seconds: float = 20.0) -> None:
    """Wait until there is none, or the time is over."""
    deadline = time.monotonic() + seconds
    while look() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
