"""The same with real sandboxes: jobs outlive the kill of their host, are found again, and all their output is there."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.chaos.checker import Checker
from tests.chaos.havoc import HOSTS
from tests.chaos.load import ORGS, Letter
from tests.chaos.processes import Kill, Service
from tests.chaos.world import Plan, Scene

from pitstop_common import messages as m
from pitstop_common import streams, subjects
from pitstop_common.bus import Bus
from pitstop_common.pull import read_all

LINES: Final = 100
_SCRIPT: Final = f"""read -r unique </proc/sys/kernel/random/uuid
echo begin $unique
for n in $(seq {LINES}); do echo line $n; sleep 0.02; done"""
_AFTER: Final = "echo after"


def services(folder: Path, _: Plan) -> list[Service]:
    """2 schedulers, a janitor, 2 hosts."""
    everyone = [Service(folder, f"scheduler-{n}", "pitstop_scheduler") for n in (1, 2)]
    everyone.append(Service(folder, "janitor-1", "pitstop_janitor"))
    for n in (1, 2):
        everyone.append(Service(
            folder, f"sandbox-{n}", "pitstop_sandbox", sandbox="namespaces", capacity="4", host_id=f"host-{n}",
        ))  # fmt: skip
    return everyone


def letters(chance: random.Random, plan: Plan) -> list[Letter]:
    """Each prints for some seconds."""
    found = []
    for number in range(plan.runs):
        org, id = chance.choice(ORGS), f"real-{number}"
        body = {"id": id, "org": org, "project": "q", "steps": [{"run": _SCRIPT}, {"run": _AFTER}]}
        at = chance.uniform(0, plan.seconds)
        found.append(Letter(at, subjects.RUN_REQUESTED, json.dumps(body).encode(), {}, org, id, "real"))
    return sorted(found, key=lambda letter: letter.at)


async def judge(bus: Bus, _: Path, __: Plan, checker: Checker, ___: list[Kill]) -> tuple[list[str], int]:
    """The output of every job as a reader puts it together."""
    chunks: dict[str, list[m.LogChunk]] = defaultdict(list)
    for item in await read_all(bus, streams.LOGS, None):
        chunk = m.decode_chunk(item.data)
        chunks[chunk.job].append(chunk)
    wrong, twice = [], 0
    for jobs in checker.books.jobs.values():
        for job in jobs:
            begun, faults = _read(chunks[job])
            twice += begun > 1
            wrong += [f"job {job}: {fault}" for fault in faults]
    wrong += [f"job {job} ended {ended}" for job, ended in checker.books.ended.items() if ended[0] != "success"]
    return wrong, twice


def _read(chunks: Iterable[m.LogChunk]) -> tuple[int, list[str]]:
    """How often the first step began, and what is wrong with the lines of both."""
    lines: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
    faults = []
    begun = set()
    for chunk in chunks:
        if chunk.kind != "output":
            continue
        of_step = lines[chunk.step, chunk.tries]
        for at, line in enumerate(chunk.lines, chunk.first):
            if of_step.setdefault(at, line) != line:
                faults.append(f"step {chunk.step} says {line!r} and {of_step[at]!r} in line {at}")
            if line.startswith("begin "):
                begun.add(line)
    wanted = {(1, 1): [f"line {n}" for n in range(1, LINES + 1)], (2, 1): ["after"]}
    for step, said in wanted.items():
        found = [line for _, line in sorted(lines.pop(step, {}).items()) if not line.startswith("begin ")]
        if found != said:
            faults.append(f"step {step[0]} has {len(found)} lines of {len(said)}")
    faults += [f"step {step} was tried again" for step, _ in lines]
    return len(begun), faults


REAL: Final = Scene(services=services, letters=letters, deeds=HOSTS, judge=judge)
