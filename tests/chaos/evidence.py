"""What the steps themselves left behind (played_host.py): each ran once, to its end, and never too many at once."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.books import Books
from tests.chaos.processes import Kill

from pitstop_common.ids import run_of_job

STEPS: Final = {"plain": 1, "two": 2, "jobs": 1, "unnamed": 1, "resumes": 2, "fails": 1, "long": 1}
"""How many steps a job of a kind runs when it succeeds, or fails as it should."""


class Line(NamedTuple):
    """One begin or end of a step's process."""

    what: str
    key: str
    process: str
    pid: int
    at: float

    @property
    def run(self) -> str:
        """The run it belongs to."""
        return run_of_job(self.key)


def read(path: Path) -> list[Line]:
    """In the order of writing."""
    fields = (line.split() for line in path.read_text().splitlines())
    return [Line(what, key, process, int(pid), float(at)) for what, key, process, pid, at in fields]


def judge(
    lines: list[Line], books: Books, asked: Mapping[str, str], kills: list[Kill], most: int
) -> tuple[list[str], int]:
    """What is wrong, and how many steps ran more than once. `most`: slots that an org ever had."""
    wrong = []
    begun = Counter((line.key, line.process) for line in lines if line.what == "begin")
    twice = sorted(f"{key} {process} ({count} times)" for (key, process), count in begun.items() if count > 1)
    if twice:
        wrong.append(f"steps that ran more than once: {', '.join(twice[:5])}")
    known = {f"{job}.{attempt}" for job, attempt in books.granted}
    if strangers := {key for key, _ in begun} - known:
        wrong.append(f"steps of what was never granted: {sorted(strangers)[:5]}")
    done: dict[str, int] = defaultdict(int)
    for line in lines:
        done[line.key] += line.what == "end"
    wrong += _overlaps(lines, books, kills)

    def last(job: str) -> str:
        return f"{job}.{books.attempts.get(job, 0)}"

    for run, kind in asked.items():
        for job in books.jobs.get(run, ()):
            result, _ = books.ended.get(job, ("", ""))
            if result in {"success", "failure"} and kind in STEPS and done[last(job)] != STEPS[kind]:
                wrong.append(f"job {job} ({kind}) is a {result}, and {done[last(job)]} of its steps came to their end")
    at_once = _at_once(lines, books, asked, kills)
    wrong += [f"{count} steps of {org} ran at once" for org, count in at_once.items() if count > most]
    return wrong, len(twice)


def _overlaps(lines: list[Line], books: Books, kills: list[Kill]) -> list[str]:
    """Attempts that began before the killed process of the one before had its end. (A stopped one does not run.)"""
    died = {kill.pid: kill.at for kill in kills}
    first = {line.key: line.at for line in reversed(lines) if line.what == "begin"}
    gone = {line.key: died[line.pid] for line in lines if line.pid in died and books.retried.get(line.key)}
    wrong = []
    for key, at in gone.items():
        job, _, attempt = key.rpartition(".")
        if first.get(f"{job}.{int(attempt) + 1}", at) < at:
            wrong.append(f"attempt {key} was not over when the next one began")
    return wrong


def _at_once(lines: list[Line], books: Books, asked: Mapping[str, str], kills: list[Kill]) -> Counter[str]:
    """Steps of an org at once, by the clock of this machine; a cancelled one gives its slot back while it is ended, and
    a stopped process, which does not run, when it is called lost."""
    ends = {(line.key, line.process): line.at for line in lines if line.what == "end"}
    died = {kill.pid: kill.at for kill in kills}
    going: dict[str, list[float]] = defaultdict(list)
    most: Counter[str] = Counter()
    for line in sorted(lines, key=lambda line: line.at):
        lost = line.key in books.retried or books.ended.get(line.key.rpartition(".")[0], ("", ""))[1] == "host_lost"
        if line.what != "begin" or lost or asked.get(line.run) == "cancelled":
            continue
        org = going[books.orgs.get(line.run, "")]
        while org and org[0] <= line.at:
            heapq.heappop(org)
        heapq.heappush(org, ends.get((line.key, line.process), died.get(line.pid, float("inf"))))
        most[books.orgs.get(line.run, "")] = max(most[books.orgs.get(line.run, "")], len(org))
    return most
