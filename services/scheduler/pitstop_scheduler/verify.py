"""`verify`: folds the log again and proves what the product is trusted for. Says what is wrong, and where.

Proved (`proof`): no limit was exceeded by a grant, each job was granted once per attempt and gave its slot back once,
each run ended once and after all its jobs. And the read models agree with the fold, those of ended runs and of living.
From the log's beginning, or, when that was trimmed, from the oldest snapshot on; each snapshot behind that is compared
with the fold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from nats.errors import Error as NatsError

from pitstop_common import messages as m
from pitstop_common.bucket import Bucket, Entry
from pitstop_common.bus import Bus, connected
from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.limits import VIEWS_KEPT
from pitstop_common.pull import read_all
from pitstop_common.streams import DEC, IN, partitions_of
from pitstop_common.subjects import decisions
from pitstop_scheduler import changes as c
from pitstop_scheduler.model import State
from pitstop_scheduler.pool import Lease
from pitstop_scheduler.proof import Checker, Model
from pitstop_scheduler.rooms import sharer
from pitstop_scheduler.snapshot import Manifest, differences
from pitstop_scheduler.snapshot_store import Snapshots

_TRIMMED_MEANWHILE: Final = 3
"""The log can be trimmed between the look at the snapshots and the reading: so many looks."""
_LOOK: Final = 0.25
_LOOKS: Final = 12
"""The read models trail the log a little: so many looks, so far apart in seconds."""


async def check(bus: Bus, partition: int = 0) -> Checker:
    """Fold all that is stored, and compare the read models of what lives. Raises Unavailable when the log was trimmed
    and no snapshot reaches it."""
    snapshots = Snapshots(bus, partition)
    for _ in range(_TRIMMED_MEANWHILE):
        manifests = await snapshots.manifests()
        found = [(item.seq, c.read_record(item.data)) for item in await read_all(bus, DEC, decisions(partition))]
        log = [(sequence, record) for sequence, record in found if record is not None]
        checker = await _start(snapshots, manifests, log)
        if checker is not None:
            break
    else:
        raise Unavailable(f"the log of partition {partition} starts at record {log[0][0]}, and no snapshot reaches it")
    await _fold(checker, log, {one.head: one for one in manifests}, snapshots)
    checker.sums()
    wrong = await _read_models(bus, checker)
    for _ in range(_LOOKS):
        if not wrong:
            break
        await asyncio.sleep(_LOOK)
        wrong = await _read_models(bus, checker)
    checker.wrong += wrong
    return checker


async def _read_models(bus: Bus, checker: Checker) -> list[str]:
    stored = await Bucket(bus, "runs").scan()
    return [fault for key, wanted in checker.models().items() for fault in _compare(checker.state, stored, key, wanted)]


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
    checkers[0].wrong += await _strangers(bus, checkers)
    return checkers


def _compare(state: State, stored: dict[str, Entry], key: str, wanted: Model) -> Iterator[str]:
    """What of a read model is not as the log has it. One that is newer than what was read of the log is passed over."""
    entry = stored.get(key)
    if entry is None or entry.value is None:
        ended = wanted.get("finished", 0.0)
        if not ended or ended > state.now - VIEWS_KEPT:  # the janitor removes older ones
            yield f"read model {key} is missing"
        return
    try:
        found = (m.decode_run_view if key.count(".") == 1 else m.decode_job_view)(entry.value)
    except msgspec.MsgspecError as error:
        yield f"read model {key} cannot be read: {error}"
        return
    if found.seq <= state.head:
        for name, value in wanted.items():
            if getattr(found, name) != value:
                yield f"read model {key}: {name} is {getattr(found, name)!r}, the log has {value!r}"


async def _strangers(bus: Bus, checkers: list[Checker]) -> list[str]:
    """Read models of what was never queued. Only a log that is there from its beginning can say so."""
    if any(checker.start for checker in checkers):
        return []
    stored = await Bucket(bus, "runs").scan()
    known = {run for checker in checkers for run in checker.queued}
    if any(key.split(".")[1] not in known for key in stored):  # or it was queued after its log was read
        again = [await check(bus, checker.state.partition) for checker in checkers]
        known = {run for checker in again for run in checker.queued}
    return [f"read model {key}: the log knows no such run" for key in stored if key.split(".")[1] not in known]


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
