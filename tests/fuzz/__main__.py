"""`python -m tests.fuzz --packets 1000000 --seed 7`; `--only seam:12` repeats one conversation of a seed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop
from tests.fuzz.door import plain, sealed
from tests.fuzz.frames import frames
from tests.fuzz.inside import inside
from tests.fuzz.parts import Done, Make, fuzz
from tests.fuzz.seam import seam

PARTS: Final[dict[str, tuple[Make, float]]] = {
    "frames": (frames, 0.35),
    "seam": (seam, 0.35),
    "plain": (plain, 0.2),
    "sealed": (sealed, 0.08),
    "inside": (inside, 0.02),
}
"""With the share of all packets."""


def run(name: str, packets: int, seed: int, only: int = -1) -> Done:
    """One part, on a loop of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="pitstop-fuzz-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(fuzz(name, PARTS[name][0], Path(folder), packets, seed, only))


def main() -> int:
    """Exit status 1 when something was found."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--only", default="", metavar="PART:NUMBER")
    asked = parser.parse_args()
    if asked.only:
        name, _, number = asked.only.partition(":")
        print(run(name, 1, asked.seed, int(number)))
        return 0
    chosen = asked.part or list(PARTS)
    whole = sum(PARTS[name][1] for name in chosen)
    total = seconds = 0.0
    for name in chosen:
        try:
            done = run(name, round(asked.packets * PARTS[name][1] / whole), asked.seed)
        except AssertionError as found:
            print(found)
            return 1
        total, seconds = total + done.packets, seconds + done.seconds
        deep = ", ".join(f"{count} {what}" for what, count in done.reached.items())
        print(f"{name:<8} {done.packets:>8} packets in {done.conversations} conversations ({deep}), "
              f"{done.seconds:.0f} s, memory {done.memory / 1024 / 1024:+.1f} MiB", flush=True)  # fmt: skip
    print(f"seed {asked.seed}: {total:.0f} packets in {seconds:.0f} s: no crash, no leak, no login")
    return 0


if __name__ == "__main__":
    sys.exit(main())
