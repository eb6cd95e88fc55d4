"""`python -m tests.altered <scheduler|janitor>`: a real service with one thing about its process altered.

`ALTERED_CLOCK=<seconds>`: the machine's clock is off by so much. `ALTERED_DEATH=<subject>,<n>,<file>`: the process is
killed as by kill -9 between a commit and its effects, of the first record that publishes on a subject which begins so;
n of its effects are out by then. The file says that it has happened.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from pitstop_common.lifecycle import run
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.service import serve
from pitstop_scheduler import publisher
from pitstop_scheduler.config import Config
from pitstop_scheduler.effects import Effect, Publish
from pitstop_scheduler.service import main


def shift_clock(seconds: float) -> None:
    """For every module: none has a `time.time` of its own."""
    true_time = time.time
    time.time = lambda: true_time() + seconds


def die_before_effects(subject: str, sent: int, told: Path) -> None:
    """Once, in the process that commits such a record."""
    publish = publisher.Publisher.publish

    async def dying(self: publisher.Publisher, sequence: int, effects: list[Effect]) -> None:
        if any(isinstance(one, Publish) and one.subject.startswith(subject) for one in effects) and not told.exists():
            await publish(self, sequence, effects[:sent])
            await self._bus.nc.flush()
            told.write_text(f"{sequence} {len(effects)}")
            os.kill(os.getpid(), signal.SIGKILL)
        await publish(self, sequence, effects)

    publisher.Publisher.publish = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    if clock := os.environ.get("ALTERED_CLOCK"):
        shift_clock(float(clock))
    if death := os.environ.get("ALTERED_DEATH"):
        subject, sent, told = death.split(",")
        die_before_effects(subject, int(sent), Path(told))
    if sys.argv[1] == "scheduler":
        run("scheduler", Config, main)
    else:
        run("janitor", JanitorConfig, serve)
