"""`verify`: folds the log again and proves what the product is trusted for. Says what is wrong, and where.

Proved: no limit was exceeded by a grant, each job was granted once per attempt and gave its slot back once, each run
ended once and after all its jobs, and the read models agree with the fold. From the log's beginning, or, when that was
trimmed, from the oldest snapshot on; each snapshot behind that is compared with the fold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from nats.errors import Error as NatsError

from pitstop_common import messages as m
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus, connected
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.pull import read_all
from pitstop_common.streams import DEC, IN, partitions_of
from pitstop_common.subjects import decisions
from pitstop_scheduler import changes as c
from pitstop_scheduler.fold import fold
from pitstop_scheduler.grants import org_limit, project_limit
from pitstop_scheduler.model import State
from pitstop_scheduler.pool import Lease
from pitstop_scheduler.rooms import sharer
from pitstop_scheduler.snapshot import Manifest, differences
from pitstop_scheduler.snapshot_store import Snapshots
from pitstop_scheduler.transitions import HOLDS_SLOT, IllegalTransition
from pitstop_scheduler.views import job_view, run_view

_ATTEMPTS: Final = 10
_TRIMMED_MEANWHILE: Final = 3
"""The log can be trimmed between the look at the snapshots and the reading: so many looks."""
_LOOK: Final = 0.25
_LOOKS: Final = 12
"""The read models trail the log a little: so many looks, so far apart in seconds."""


class Checker:
    """Folds records and collects what is wrong."""

    def __init__(self, start: State | None = None) -> None:
        self.state = state = start or State()
        self.start = state.head
        """Proved from behind this record on; 0: from the beginning."""
        self.wrong: list[str] = []
        self.records = 0
        self.granted = {(job.id, job.attempt) for job in state.jobs.values() if job.attempt}
        self.ended = {*state.known, *(run.id for run in state.runs.values() if run.result)}
        self.queued = {*state.known, *state.runs}

    def take(self, sequence: int, record: c.Record) -> None:
        """One record, in order."""
        self.records += 1
        if record.after >= 0 and record.after != self.state.head:
            self._say(sequence, f"comes after record {record.after}, the one before it here is {self.state.head}")
        if record.watermark < self.state.watermark or record.epoch < self.state.epoch:
            self._say(sequence, "goes back: its watermark or epoch is below an earlier one")
        lowered = any(isinstance(change, c.Limits | c.Defaults) for change in record.changes)
        for change in record.changes:
            self._check(sequence, change)
        try:
            fold(self.state, record, sequence)
        except (IllegalTransition, KeyError, AssertionError) as error:
            self._say(sequence, f"cannot be folded: {error!r}")
            return
        if not lowered:
            self._limits(sequence, record)

    def _check(self, sequence: int, change: c.AnyChange) -> None:
        if isinstance(change, c.Queued):
            if self.state.source_of(change.run) is not None:
                self._say(sequence, f"run {change.run} is queued a second time")
            elif change.run in self.queued:  # so long after its end that it may come again
                self.ended.discard(change.run)
                self.granted -= {(job, attempt) for job, *_ in change.jobs for attempt in range(1, _ATTEMPTS)}
            self.queued.add(change.run)
        elif isinstance(change, c.Granted):
            if (change.job, change.attempt) in self.granted:
                self._say(sequence, f"job {change.job} attempt {change.attempt} is granted a second time")
            self.granted.add((change.job, change.attempt))
        elif isinstance(change, c.RunEnded):
            if change.run in self.ended:
                self._say(sequence, f"run {change.run} ends a second time")
            self.ended.add(change.run)

    def _limits(self, sequence: int, record: c.Record) -> None:
        for change in record.changes:
            job = self.state.job(change.job) if isinstance(change, c.Granted) else None
            run = self.state.run(job.run) if job else None
            if job is None or run is None:
                continue
            org = self.state.org(run.org)
            limit = org_limit(self.state, run.org)
            if limit and org.used > limit:
                self._say(sequence, f"org {run.org} holds {org.used} slots; its limit is {limit}")
            pool = self.state.pool(job.pool)
            if self.state.partitions > 1 and pool.room > pool.share:
                self._say(sequence, f"{pool.room} jobs are on hosts of pool {job.pool}; {pool.share} places are theirs")
            limit = project_limit(self.state, run.org, run.project)
            if limit and org.used_by_project.get(run.project, 0) > limit:
                self._say(sequence, f"project {run.org}/{run.project} is over its limit of {limit}")

    def sums(self) -> None:
        """The counters that are kept agree with the jobs they count."""
        used: dict[str, int] = {}
        for job in self.state.jobs.values():
            if job.status in HOLDS_SLOT:
                org = self.state.runs[job.run].org
                used[org] = used.get(org, 0) + 1
        for name, org_ in self.state.orgs.items():
            if org_.used != used.get(name, 0):
                self.wrong.append(f"org {name} counts {org_.used} slots in use, its jobs hold {used.get(name, 0)}")
        for run in self.state.runs.values():
            jobs = [self.state.jobs[job] for job in run.jobs]
            if bool(run.result) != all(job.status == "finished" for job in jobs):
                self.wrong.append(f"run {run.id} has result {run.result!r}, its jobs: {[job.status for job in jobs]}")

    def _say(self, sequence: int, text: str) -> None:
        self.wrong.append(f"record {sequence}: {text}")


async def check(bus: Bus, partition: int = 0) -> Checker:
    """Fold all that is stored, and compare the read models of what lives. Raises Unavailable when the log was trimmed
    and no snapshot reaches it."""
    snapshots = Snapshots(bus, partition)
    for _ in range(_TRIMMED_MEANWHILE):
        manifests = await snapshots.manifests()
        log = [(item.seq, c.decode_record(item.data)) for item in await read_all(bus, DEC, decisions(partition))]
        checker = await _start(snapshots, manifests, log)
        if checker is not None:
            break
    else:
        raise Unavailable(f"the log of partition {partition} starts at record {log[0][0]}, and no snapshot reaches it")
    await _fold(checker, log, {one.head: one for one in manifests}, snapshots)
    checker.sums()
    wrong = await _read_models(bus, checker.state)
    for _ in range(_LOOKS):
        if not wrong:
            break
        await asyncio.sleep(_LOOK)
        wrong = await _read_models(bus, checker.state)
    checker.wrong += wrong
    return checker


async def _read_models(bus: Bus, state: State) -> list[str]:
    stored = await Bucket(bus, "runs").scan()
    wrong: list[str] = []
    for run in state.runs.values():
        if run.result:
            wrong += _compare(stored, f"{run.org}.{run.id}", run_view(run, 0), m.decode_run_view)
            for id in run.jobs:
                view = job_view(state.jobs[id], run, 0)
                wrong += _compare(stored, f"{run.org}.{run.id}.{id}", view, m.decode_job_view)
    return wrong


async def _start(snapshots: Snapshots, manifests: list[Manifest], log: list[tuple[int, c.Record]]) -> Checker | None:
    first = log[0][1].after if log else 0
    if first <= 0:
        return Checker()
    for manifest in reversed(manifests):
        state = await snapshots.read(manifest) if manifest.head >= first else None
        if state is not None:
            return Checker(state)
    return None


async def _fold(checker: Checker, log: list[tuple[int, c.Record]], manifests: dict[int, Manifest],
                snapshots: Snapshots) -> None:  # fmt: skip
    for sequence, record in log:
        if sequence <= checker.start:
            continue
        checker.take(sequence, record)
        if sequence in manifests:
            state = await snapshots.read(manifests[sequence])
            wrong = differences(checker.state, state) if state else []
            if wrong:
                checker.wrong.append(f"the snapshot at record {sequence} differs from the fold in {', '.join(wrong)}")


async def check_all(bus: Bus) -> list[Checker]:
    """Each partition, and that no place of a pool is in the hands of two. Raises Unavailable."""
    try:
        partitions = partitions_of((await bus.js.stream_info(IN)).config)
    except (NatsError, TimeoutError, ValueError) as error:
        raise Unavailable(f"stream IN cannot be looked at: {error}") from error
    checkers = [await check(bus, partition) for partition in range(partitions)]
    for checker in checkers:
        for name, pool in checker.state.pools.items():
            lease = checkers[sharer(name, partitions)].state.pool(name).leases.get(checker.state.partition)
            if pool.given > (lease.given if lease else 0):  # or the log of that one was read before it gave them
                state = (await check(bus, sharer(name, partitions))).state
                lent = state.pool(name).leases.get(checker.state.partition, Lease()).given
                if pool.given > lent:
                    checker.wrong.append(f"it was given {pool.given} places of pool {name}, and {lent} were lent to it")
    return checkers


def _compare(stored: dict[str, Any], key: str, wanted: Any, decode: Any) -> Iterator[str]:
    entry = stored.get(key)
    if entry is None:
        yield f"read model {key} is missing"
        return
    found = decode(entry.value)
    for name in ("status", "result"):
        if getattr(found, name) != getattr(wanted, name):
            yield f"read model {key}: {name} is {getattr(found, name)}, the log has {getattr(wanted, name)}"


def command(arguments: list[str]) -> int:
    """The command line. Exit 0: all is proved; 1: something is wrong; 3: could not check."""
    parser = argparse.ArgumentParser(prog="pitstop verify", description="Fold the decision log and check it.")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    try:
        checkers = asyncio.run(_run(os.environ.get("PITSTOP_NATS_URL", "nats://127.0.0.1:4222")))
    except PitstopError as error:
        print(f"cannot check: {error}", file=sys.stderr)  # noqa: T201
        return 3
    figures = _figures(checkers)
    if options.output == "json":
        print(json.dumps(figures))  # noqa: T201
    else:
        starts = {number: checker.start for number, checker in enumerate(checkers) if checker.start}
        since = f" from the snapshot at record {starts[0]} on" if len(checkers) == 1 and starts else ""
        many = f" of {len(checkers)} partitions ({len(starts)} from a snapshot on)" if len(checkers) > 1 else ""
        print(f"{figures['records']} records{many}{since}: {figures['runs']} runs, {figures['ended']} ended, "  # noqa: T201
              f"{figures['grants']} grants; {len(figures['wrong'])} wrong")  # fmt: skip
        for line in figures["wrong"]:
            print(f"  {line}")  # noqa: T201
    return 1 if figures["wrong"] else 0


def _figures(checkers: list[Checker]) -> dict[str, Any]:
    """Sums; `from`: the record behind which each partition is proved."""
    several = len(checkers) > 1
    wrong = [f"partition {number}: {text}" if several else text
             for number, checker in enumerate(checkers) for text in checker.wrong]  # fmt: skip
    return {
        "from": [checker.start for checker in checkers] if several else checkers[0].start, "partitions": len(checkers),
        "records": sum(checker.records for checker in checkers), "runs": sum(len(one.queued) for one in checkers),
        "ended": sum(len(one.ended) for one in checkers), "grants": sum(len(one.granted) for one in checkers),
        "wrong": wrong,
    }  # fmt: skip


async def _run(url: str) -> list[Checker]:
    async with connected(url, "pitstop-verify", attempts=3) as bus:
        return await check_all(bus)
