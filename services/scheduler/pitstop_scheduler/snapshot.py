"""A fold as bytes, and back. Pure.

The bytes are frames, each its length and a msgpack map, deflated, of at most some hundred items, so that nobody is kept
waiting for long by one of them. Fields go by name: a version that adds one reads what an older one wrote.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from pitstop_scheduler.fold import visits
from pitstop_scheduler.model import Host, Job, Org, Run, State
from pitstop_scheduler.pool import Pool

VERSION: Final = 2
_ITEMS: Final = 256
_LENGTH: Final = 4
_LEVEL: Final = 1
"""A third of the bytes for some microseconds an item: most of them are names of fields, and hosts of the same times."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a snapshot is whole: the record it was taken after, and what its bytes are. A reader needs the log from
    behind `published_to` on."""

    version: int
    head: int
    records: int
    published_to: int
    epoch: int
    now: float
    chunks: int
    size: int
    crc: int


class _Part(msgspec.Struct, tag_field="t"):
    pass


class _Scalars(_Part, tag="scalars"):
    values: dict[str, int | float | str]


class _Jobs(_Part, tag="jobs"):
    items: list[Job]


class _Runs(_Part, tag="runs"):
    items: list[Run]


class _Orgs(_Part, tag="orgs"):
    items: list[tuple[str, Org]]


class _Hosts(_Part, tag="hosts"):
    items: list[Host]


class _Pools(_Part, tag="pools"):
    items: list[tuple[str, Pool]]


class _Known(_Part, tag="known"):
    items: list[tuple[str, str]]


class _KnownBy(_Part, tag="known_by"):
    items: list[tuple[float, int]]


class _Ended(_Part, tag="ended"):
    items: list[tuple[int, str]]


class _Queue(_Part, tag="queue"):
    org: str
    rank: int
    items: list[str]


_SCALARS: Final = (
    "epoch", "owner", "head", "watermark", "now", "published_to", "org_slots", "project_slots", "pool_slots", "turn",
    "records", "placed", "partition", "partitions",
)  # fmt: skip
_DERIVED: Final = frozenset({"_copied", "turns", "visited"})
"""What is no part of a state, or follows from the rest of it."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    _Scalars | _Jobs | _Runs | _Orgs | _Hosts | _Pools | _Known | _KnownBy | _Ended | _Queue
).decode


class Frozen(NamedTuple):
    """A state as it was when it was frozen: lists of what the fold copies before it changes it, until unpinned."""

    scalars: dict[str, int | float | str]
    jobs: Sequence[Job]
    runs: Sequence[Run]
    orgs: dict[str, Org]
    hosts: Sequence[Host]
    pools: Sequence[tuple[str, Pool]]
    known: dict[str, str]
    known_by: Sequence[tuple[float, int]]
    ended: Sequence[tuple[int, str]]
    queues: Sequence[tuple[str, int, list[str]]]


def freeze(state: State) -> Frozen:
    """Take hold of a state in one short step, and pin it: unpin it when all frames are made."""
    state.pin()
    return Frozen(
        {name: getattr(state, name) for name in _SCALARS},
        list(state.jobs.values()),
        list(state.runs.values()),
        dict(state.orgs),
        list(state.hosts.values()),
        [(name, msgspec.structs.replace(pool, leases=dict(pool.leases))) for name, pool in state.pools.items()],
        dict(state.known),
        list(state.known_by),
        list(state.ended),
        [(org, rank, list(jobs)) for org, ranks in state.queues.items() for rank, jobs in ranks.items()],
    )


def frames(frozen: Frozen) -> Iterator[bytes]:
    """The bytes of a state, in pieces of well under a millisecond's work."""
    yield _frame(_Scalars(frozen.scalars))
    yield from (_frame(_Jobs(items)) for items in _sliced(frozen.jobs))
    yield from (_frame(_Runs(items)) for items in _sliced(frozen.runs))
    yield from (_frame(_Orgs(items)) for items in _sliced(frozen.orgs.items()))
    yield from (_frame(_Hosts(items)) for items in _sliced(frozen.hosts))
    yield from (_frame(_Pools(items)) for items in _sliced(frozen.pools))
    yield from (_frame(_Known(items)) for items in _sliced(frozen.known.items()))
    yield from (_frame(_KnownBy(items)) for items in _sliced(frozen.known_by))
    yield from (_frame(_Ended(items)) for items in _sliced(frozen.ended))
    for org, rank, jobs in frozen.queues:
        yield from (_frame(_Queue(org, rank, items)) for items in _sliced(jobs))


def _sliced(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, _ITEMS)):
        yield some


def _frame(part: _Part) -> bytes:
    body = zlib.compress(_encode(part), _LEVEL)
    return len(body).to_bytes(_LENGTH, "big") + body


def restore(data: bytes) -> Iterator[State]:
    """A state from its bytes, frame by frame: yields it after each, so that others get their turn; whole after the
    last. Raises ValueError when the bytes are not those of a state."""
    state, at = State(), 0
    view = memoryview(data)
    while at < len(view):
        length = int.from_bytes(view[at : at + _LENGTH], "big")
        body = view[at + _LENGTH : at + _LENGTH + length]
        if len(body) != length:
            raise ValueError("a frame is cut off")
        try:
            part = _decode(zlib.decompress(body))
        except zlib.error as error:
            raise ValueError(f"a frame is damaged: {error}") from None
        _take(state, part)
        at += _LENGTH + length
        yield state


def _take(state: State, part: Any) -> None:
    match part:
        case _Scalars(values):
            for name in _SCALARS:
                setattr(state, name, values.get(name, getattr(state, name)))
        case _Jobs(items):
            state.jobs.update((job.id, job) for job in items)
        case _Runs(items):
            state.runs.update((run.id, run) for run in items)
            _take_visits(state, items)
        case _Orgs(items):
            state.orgs.update(items)
        case _Hosts(items):
            state.hosts.update((host.id, host) for host in items)
        case _Pools(items):
            state.pools.update(items)
        case _Known(items):
            state.known.update(items)
        case _KnownBy(items):
            state.known_by.extend(items)
        case _Ended(items):
            state.ended.extend(items)
        case _Queue(org, rank, items):
            _take_queue(state, org, rank, items)


def _take_visits(state: State, runs: list[Run]) -> None:
    for run in runs:
        for job in run.jobs:
            visits(state, state.jobs[job])


def _take_queue(state: State, org: str, rank: int, jobs: list[str]) -> None:
    for job in jobs:
        state.enqueue(org, rank, job)


def differences(one: State, other: State) -> list[str]:
    """The names of what two states differ in, orders included. Empty: they are equal."""
    return [name for name in vars(one) if name not in _DERIVED and _plain(one, name) != _plain(other, name)]


def _plain(state: State, name: str) -> Any:
    value = getattr(state, name)
    if name == "queues":
        return [(org, [(rank, list(jobs)) for rank, jobs in ranks.items()]) for org, ranks in value.items()]
    return list(value.items()) if isinstance(value, dict) else list(value) if isinstance(value, deque) else value
