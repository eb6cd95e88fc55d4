"""A log as the scheduler writes it, from what hosts and people say: for tests that tamper with it."""

from __future__ import annotations

from typing import Any

from pitstop_common import messages as m
from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.tick import Stored

Log = list[c.Record]


class Writer:
    """Writes a log as the scheduler does, from what hosts and people say."""

    def __init__(self) -> None:
        self.state, self.log, self.facts, self.serial = State(), Log(), 0, 0
        self.commit((c.Defaults(3, 2, 3),))

    def commit(self, changes: tuple[c.AnyChange, ...], watermark: int = 0, now: float = 0.0) -> None:
        head = self.state.head
        record = c.Record(1, head + 1, "me", max(watermark, self.state.watermark), now, max(0, head - 3), changes, head)
        self.log.append(record)
        fold(self.state, record, head + 1)

    def say(self, *facts: m.Fact) -> None:
        stored = [Stored(self.facts + n, 1000.0 + self.facts + n, fact) for n, fact in enumerate(facts, 1)]
        self.facts += len(facts)
        decision = decide(self.state, stored, self.state.now)
        self.commit(decision.changes, decision.watermark, decision.now)

    def room(self, host: str, capacity: int) -> None:
        self.serial += 1
        self.say(m.SandboxRoom(id=f"n{self.serial}", time="", org="_", run="_", host=host, pool="default",
                               incarnation="1", capacity=capacity, serial=self.serial))  # fmt: skip

    def request(self, number: int, org: str, project: str = "web", jobs: int = 1) -> None:
        run = f"r{number}"
        accepted = tuple(m.AcceptedJob(job=f"{run}-{n}", key=f"k{n}", pool="default") for n in range(1, jobs + 1))
        self.say(m.RunAccepted(id=run, time="", org=org, run=run, project=project, request=run, jobs=accepted,
                               source=f"REQ:{number}"))  # fmt: skip

    def host_says(self, kind: type[m.HostFact], job: str, **fields: Any) -> None:
        self.serial += 1
        found = self.state.jobs[job]
        run = self.state.runs[found.run]
        fact = kind(id=f"f{self.serial}", time="", org=run.org, run=run.id, job=job, attempt=found.attempt, host="h1",
                    incarnation="1", serial=self.serial, **fields)  # fmt: skip
        self.say(fact)  # type: ignore[arg-type]


def honest() -> Log:
    """Two orgs, six runs: ended, stopped, waiting; limits of org (3), project (2) and pool (3 slots, 6 places)."""
    world = Writer()
    world.room("h1", 6)
    world.say(m.OrgConfigured(id="o", time="", org="acme", run="_", slots=2, weight=1))
    for number, org in enumerate(("acme", "acme", "acme", "beta", "beta"), 1):
        world.request(number, org, jobs=2 if number == 1 else 1)
    for job in ("r1-1", "r1-2", "r4-1"):
        world.host_says(m.JobClaimed, job)
        world.host_says(m.SandboxReady, job)
    world.say(m.RunCancel(id="cancel", time="", org="beta", run="r4"))
    world.host_says(m.JobFinished, "r4-1", result="cancellation")
    world.host_says(m.JobFinished, "r1-1", result="success")
    world.host_says(m.JobFinished, "r1-2", result="success")
    return world.log


LOG = honest()
