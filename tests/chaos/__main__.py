"""`python -m tests.chaos`: the whole system under random kills, with figures. `make chaos RUNS=… SEED=…`."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop
from tests.chaos.real import REAL
from tests.chaos.world import CLUSTERED, PLAYED, Outcome, Plan, play

_RUNS_A_SECOND = 40
_MANY = 1000


def plan(runs: int, seed: int) -> Plan:
    """As much havoc as the load has time for."""
    seconds = max(30.0, runs / _RUNS_A_SECOND)
    return Plan(runs=runs, seed=seed, kills=max(20, int(seconds / 4)), gap=1.0, seconds=seconds,
                slots=20 if runs > _MANY else 5)  # fmt: skip


def plan_of_real(runs: int, seed: int) -> Plan:
    """A host process is killed every two seconds."""
    seconds = runs / 5
    return Plan(runs=runs, seed=seed, kills=max(8, int(seconds / 2)), gap=1.2, seconds=seconds)


def report(outcome: Outcome) -> None:
    """The promised line, and what is wrong."""
    print(outcome.line())
    print(outcome.details())
    for text in outcome.wrong:
        print(f"WRONG: {text}")


def main() -> int:
    """Exit status 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--real", action="store_true", help="in real sandboxes: fewer runs, and each takes seconds")
    parser.add_argument("--folder", type=Path, help="an empty folder for logs, streams and evidence, which is kept")
    parser.add_argument("--cluster", action="store_true", help="three nats-servers, each stream on all of them")
    parser.add_argument("--partitions", type=int, default=1, help="decision logs")
    parser.add_argument("--acts", action="store_true", help="print what was done to the system")
    asked = parser.parse_args()
    print(f"seed = {asked.seed}, runs = {asked.runs}", flush=True)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="pitstop-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    made = plan_of_real(asked.runs, asked.seed) if asked.real else plan(asked.runs, asked.seed)
    made = msgspec.structs.replace(made, clustered=asked.cluster, partitions=asked.partitions)
    scene = REAL if asked.real else CLUSTERED if asked.cluster else PLAYED
    print(f"logs, streams and evidence: {folder}; removed when all is well", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(play(folder, made, scene))
    if asked.acts:
        print("\n".join(outcome.acts))
    report(outcome)
    if not outcome.wrong and not asked.folder:
        shutil.rmtree(folder)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
